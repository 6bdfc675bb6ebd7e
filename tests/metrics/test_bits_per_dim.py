import math

import pytest
import torch

from genbench.core.metric import Evidence, LikelihoodEvidence
from genbench.metrics.bits_per_dim import BitsPerDim


def _score(nats, *, kind="exact", num_dims=192, levels=256):
    evidence = LikelihoodEvidence(nats=nats, kind=kind, num_dims=num_dims, levels=levels)
    (score,) = BitsPerDim().compute(Evidence(likelihood=evidence))
    return score


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_uniform_law_costs_the_logarithm_of_the_levels(levels):
    nats = torch.full((10,), -192 * math.log(levels), dtype=torch.float64)
    score = _score(nats, levels=levels)
    assert score.value == pytest.approx(math.log2(levels), rel=1e-14)
    assert score.unit == "bits/dim"
    assert score.stderr == pytest.approx(0.0, abs=1e-12)


def test_standard_error_is_that_of_a_mean_over_examples():
    nats = torch.tensor([-100.0, -200.0, -300.0, -400.0], dtype=torch.float64)
    score = _score(nats, num_dims=10)
    scale = 10 * math.log(2.0)
    assert score.value == pytest.approx(250.0 / scale)
    assert score.stderr == pytest.approx(float(nats.std()) / 2.0 / scale)
    assert score.num_samples == 4


@pytest.mark.parametrize("kind", ["exact", "dequantised", "bound", "estimate"])
def test_the_kind_of_the_likelihood_travels_with_the_score(kind):
    assert _score(torch.tensor([-10.0, -11.0]), kind=kind).kind == kind


def test_float_data_have_a_density_and_no_bits():
    score = _score(torch.tensor([3.0, 5.0]), levels=None)
    assert (score.name, score.unit, score.value) == ("nll", "nats", -4.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_likelihoods_that_are_not_finite_are_refused_and_counted(broken):
    with pytest.raises(ValueError, match="1 of 3 log-likelihoods are NaN or infinite"):
        _score(torch.tensor([-1.0, broken, -2.0]))


@pytest.mark.parametrize("kind", ["exact", "dequantised", "bound", "estimate"])
def test_probabilities_above_one_are_refused(kind):
    with pytest.raises(ValueError, match="probability above 1"):
        _score(torch.full((8,), 50.0), kind=kind)


def test_a_bound_may_exceed_probability_one_by_chance_on_one_example():
    nats = torch.tensor([-30.0, -28.0, 0.5, -29.0])
    assert _score(nats, kind="bound", num_dims=10).value > 0
    with pytest.raises(ValueError, match="probability above 1"):
        _score(nats, kind="exact", num_dims=10)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="at least 1 held-out example"):
        _score(torch.empty(0))


def test_a_single_example_has_no_spread():
    score = _score(torch.tensor([-100.0]))
    assert (score.stderr, score.ci95, score.interval) == (None, None, "none")
