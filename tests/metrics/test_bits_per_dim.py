import math

import pytest
import torch
from torch.distributions import Normal

from genbench.core.metric import Evidence, LikelihoodEvidence
from genbench.metrics.bits_per_dim import BitsPerDim, bits_per_dim, negative_log_likelihood
from genbench.prob.likelihood import importance_weighted, scaled_density_to_nats


def _score(nats, *, kind="exact", num_dims=192, levels=256):
    evidence = LikelihoodEvidence(nats=nats, kind=kind, num_dims=num_dims, levels=levels)
    return BitsPerDim().compute(Evidence(likelihood=evidence))[0]


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


def _normal(mean, std):
    """The normal law in double precision: plain numbers would become single."""
    return Normal(*(torch.as_tensor(part, dtype=torch.float64) for part in (mean, std)))


def _labelled(nats, *, kind, estimator, levels=256, num_dims=12):
    evidence = LikelihoodEvidence(nats=nats, kind=kind, num_dims=num_dims, levels=levels, estimator=estimator)
    return BitsPerDim().compute(Evidence(likelihood=evidence))


def _bins(x, law):
    return torch.log(law.cdf(x + 1.0) - law.cdf(x)).sum(1)


@pytest.fixture
def integers():
    """A Gaussian over the levels 0 .. 255 and 2000 draws of 12 integers from it."""
    law = _normal(128.0, 12.0)
    y = 128.0 + 12.0 * torch.randn(2000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return law, y.floor()


ENTROPY = 0.5 * math.log2(2.0 * math.pi * math.e * 12.0**2)
"""Bits of that Gaussian; its integers' entropy differs by less than 1e-4."""


def _noise(x):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _linear_flow(z):
    """d log p / dt = -tr(df/dz) of `dz/dt = a z`, by Runge and Kutta from noise to data and back: N(0, e^2a)."""
    rate, steps = math.log(0.1), 64
    trace = torch.zeros(len(z), dtype=torch.float64)
    for _ in range(steps):
        first = -rate * z / steps
        second = -rate * (z + first / 2) / steps
        third = -rate * (z + second / 2) / steps
        z = z + (first + 2 * second + 2 * third - rate * (z + third) / steps) / 6
        trace = trace - rate * z.shape[1] / steps
    return _normal(0.0, 1.0).log_prob(z).sum(1) + trace


def _probability_flow(y):
    """The same number for the variance-preserving process of N(0, 0.1^2) data with beta = 10, whose score is known."""
    beta, steps, z = 10.0, 400, y
    trace = torch.zeros(len(z), dtype=torch.float64)

    def rate(t):
        kept = torch.exp(torch.tensor(-beta * t, dtype=torch.float64))
        return -0.5 * beta * (1.0 - 1.0 / (0.01 * kept + 1.0 - kept))

    for i in range(steps):
        slopes = [rate((i + part) / steps) for part in (0.0, 0.5, 1.0)]
        weight = (slopes[0] + 4 * slopes[1] + slopes[2]) / 6 / steps  # Simpson; the flow is linear in z
        z, trace = z * torch.exp(weight), trace + weight * z.shape[1]
    return _normal(0.0, 1.0).log_prob(z).sum(1) + trace


def _estimates(law, x):
    """Six ways to the likelihood of the same integers: nats and their kind."""
    u, dims = _noise(x), x.shape[1]
    exact = _bins(x, law)
    scaled = (x + u) / 128.0 - 1.0  # [-1, 1): N(0, (12/128)^2)
    narrow = scaled * (0.1 * 128.0 / 12.0)  # flows below end in N(0, 0.1^2): the scale is undone in `high`
    edge = 0.1 * 128.0 / 12.0
    prior, tight = _normal(128.0, 12.0), _normal(0.5, 0.2)
    uniform = scaled_density_to_nats(prior.log_prob(x + u).sum(1), dims, low=0.0, high=256.0, levels=256)
    noise = 0.5 + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kept = tight.log_prob(noise) - math.log(float(tight.cdf(torch.tensor(1.0)) - tight.cdf(torch.tensor(0.0))))
    inside = ((noise >= 0) & (noise < 1)).all(1)
    variational = (prior.log_prob(x + noise) - kept).sum(1)[inside]
    draws = torch.stack([prior.log_prob(x + torch.roll(u, shift, 0)).sum(1) for shift in range(16)])
    flows = [
        scaled_density_to_nats(flow(narrow), dims, low=-edge, high=edge, levels=256)
        for flow in (_probability_flow, _linear_flow)
    ]
    return {
        "discrete": (exact, "exact"),
        "uniform dequantisation": (uniform, "dequantised"),
        "variational dequantisation": (variational, "dequantised"),
        "IWAE, 16 draws": (importance_weighted(draws), "bound"),
        "probability flow": (flows[0], "estimate"),
        "continuous flow": (flows[1], "dequantised"),
    }


def test_every_estimator_of_one_law_gives_its_entropy_and_its_own_label(integers):
    law, x = integers
    for estimator, (nats, kind) in _estimates(law, x).items():
        (score,) = _labelled(nats, kind=kind, estimator=estimator)
        assert score.protocol["estimator"] == estimator
        assert score.kind == kind
        short = (
            0.357 if estimator == "variational dequantisation" else 0.0
        )  # what its noise lacks of a uniform's entropy
        assert score.value == pytest.approx(ENTROPY + short, abs=0.025), estimator


def test_scores_of_two_estimators_are_not_to_be_ranked_together():
    nats = torch.tensor([-100.0, -101.0])
    one, other = (_labelled(nats, kind="bound", estimator=name)[0].protocol for name in ("ELBO", "IWAE, 500 draws"))
    assert one != other


def test_an_unnamed_estimator_leaves_no_entry():
    assert "estimator" not in _score(torch.tensor([-100.0, -101.0])).protocol


def test_binarised_data_have_nats_beside_their_bits():
    """MNIST's customary 784 pixels at 88 nats are 0.1619 bits per pixel."""
    nats = torch.tensor([-87.0, -89.0], dtype=torch.float64)
    bits, nll = _labelled(nats, kind="bound", estimator="IWAE, 5000 draws", levels=2, num_dims=784)
    assert (nll.name, nll.unit, nll.value, nll.kind) == ("nll", "nats", 88.0, "bound")
    assert (bits.name, bits.value) == ("bits_per_dim", pytest.approx(88.0 / (784 * math.log(2.0))))
    assert nll.ci95 is not None
    assert nll.stderr == pytest.approx(1.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_a_density_handed_on_without_its_offset_is_refused(low, high, integers):
    _, x = integers
    scaled = low + (high - low) * (x + _noise(x)) / 256.0
    density = _normal(low + (high - low) * 0.5, (high - low) * 12.0 / 256.0).log_prob(scaled).sum(1)
    with pytest.raises(ValueError, match="the log-Jacobian of the scaling or dequantisation may be missing"):
        _labelled(density, kind="dequantised", estimator="")
    nats = scaled_density_to_nats(density, 12, low=low, high=high, levels=256)
    (score,) = _labelled(nats, kind="dequantised", estimator="")
    assert score.value == pytest.approx(ENTROPY, abs=0.02)


def test_the_plain_functions_give_the_score():
    nats = torch.tensor([-100.0, -200.0, -300.0])
    score = _score(nats, num_dims=10)
    found = bits_per_dim(nats, 10)
    assert (found.value, found.stderr, found.ci95) == (score.value, score.stderr, score.ci95)
    assert negative_log_likelihood(nats).value == 200.0
    with pytest.raises(ValueError, match="at least 1 held-out example"):
        bits_per_dim(nats[:0], 10)


@pytest.mark.slow
def test_the_interval_holds_the_entropy_95_times_in_100():
    law = _normal(0.0, 1.0)
    entropy = 0.5 * math.log2(2.0 * math.pi * math.e)
    held = 0
    for seed in range(600):
        y = torch.randn(200, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = bits_per_dim(law.log_prob(y).sum(1), 4)
        held += found.ci95[0] <= entropy <= found.ci95[1]
    assert 0.92 <= held / 600 <= 0.98
