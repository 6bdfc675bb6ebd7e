"""The divergence from a known law, against the closed form between Gaussians."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from genbench.core.metric import Evidence, LikelihoodEvidence
from genbench.metrics.exact_kl import ExactKL, exact_kl


def _normal(mean, std):
    return Normal(*(torch.tensor(part, dtype=torch.float64) for part in (mean, std)))


LAW, MODEL = _normal(0.0, 1.0), _normal(0.5, 1.3)
CLOSED = 2 * (math.log(1.3) + (1.0 + 0.25) / (2.0 * 1.3**2) - 0.5)
"""KL between the two, in 2 dimensions."""


def _both(num, *, seed=0, law=LAW, model=MODEL):
    x = torch.randn(num, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return law.log_prob(x).sum(1), model.log_prob(x).sum(1)


def test_gaussians_diverge_by_the_closed_form():
    found = exact_kl(*_both(200_000))
    assert found.value == pytest.approx(CLOSED, abs=4.0 * found.stderr)
    assert found.stderr < 0.002


def test_a_law_does_not_diverge_from_itself():
    true, _ = _both(100)
    found = exact_kl(true, true)
    assert (found.value, found.stderr) == (0.0, 0.0)


@pytest.mark.slow
def test_the_interval_holds_the_closed_form_95_times_in_100():
    found = [exact_kl(*_both(400, seed=seed)) for seed in range(600)]
    assert 0.92 <= np.mean([one.ci95[0] <= CLOSED <= one.ci95[1] for one in found]) <= 0.98


def test_the_kind_of_the_likelihood_travels_with_the_score():
    true, nats = _both(50)
    evidence = LikelihoodEvidence(
        nats=nats - 0.3, kind="bound", num_dims=2, levels=None, true_nats=true, estimator="IWAE, 500 draws"
    )
    (score,) = ExactKL().compute(Evidence(likelihood=evidence))
    assert (score.name, score.unit, score.kind, score.better) == ("kl", "nats", "bound", "lower")
    assert score.value == pytest.approx(exact_kl(true, nats).value + 0.3, rel=1e-12)
    assert score.protocol == {"num_dims": 2, "num_examples": 50, "estimator": "IWAE, 500 draws"}


def test_a_density_that_is_not_normalised_is_refused():
    true, nats = _both(500)
    with pytest.raises(ValueError, match="no normalised density can"):
        exact_kl(true, nats + 2.0)


def test_chance_may_bring_a_small_divergence_below_zero():
    true, nats = _both(20, seed=3, model=_normal(0.05, 1.0))
    found = exact_kl(true, nats)
    assert abs(found.value) < 0.1
    low = exact_kl(true, nats + abs(found.value) + 0.5 * found.stderr)
    assert low.value < 0
    assert low.ci95[0] < low.value


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_densities_that_are_not_finite_are_refused_and_counted(broken):
    true, nats = _both(5)
    nats[2] = broken
    with pytest.raises(ValueError, match="1 of 5 log-densities"):
        exact_kl(true, nats)


def test_missing_evidence_is_named():
    with pytest.raises(ValueError, match="found no likelihood"):
        ExactKL().compute(Evidence())
    bare = LikelihoodEvidence(nats=torch.zeros(3), kind="exact", num_dims=2, levels=None)
    with pytest.raises(ValueError, match="found a likelihood and no true density"):
        ExactKL().compute(Evidence(likelihood=bare))
    with pytest.raises(ValueError, match="at least 2 held-out examples, found 1"):
        exact_kl(torch.zeros(1), torch.zeros(1))
