"""The importance-weighted bound, against a linear Gaussian model whose evidence is known."""

import math

import pytest
import torch
from torch import Generator, Tensor

from genbench.prob import gaussian
from genbench.prob.latent_bound import bound_estimator, importance_weighted_bound

S = 0.4


def _problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x | z ~ N(2 z, S^2): data, the exact posterior's moments and the log-evidence of each."""
    x = torch.linspace(-3.0, 3.0, 6, dtype=torch.float64)
    precision = 1.0 + 4.0 / S**2
    mu, log_sigma = 2.0 * x / S**2 / precision, torch.full_like(x, -0.5 * math.log(precision))
    evidence = gaussian.log_prob(x, torch.zeros_like(x), torch.full_like(x, 0.5 * math.log(4.0 + S**2)))
    return x, mu.unsqueeze(1), log_sigma.unsqueeze(1), evidence


def _bound(mu: Tensor, log_sigma: Tensor, x: Tensor, *, num_draws: int, seed: int = 0) -> Tensor:
    log_s = torch.tensor(math.log(S), dtype=torch.float64)
    return importance_weighted_bound(
        mu,
        log_sigma,
        log_prob_given=lambda z: gaussian.log_prob(x, 2.0 * z.squeeze(1), log_s),
        num_draws=num_draws,
        generator=Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("num_draws", [1, 7])
def test_with_the_exact_posterior_any_number_of_draws_gives_the_evidence(num_draws):
    x, mu, log_sigma, evidence = _problem()
    torch.testing.assert_close(_bound(mu, log_sigma, x, num_draws=num_draws), evidence, rtol=0, atol=1e-12)


def test_with_a_wrong_posterior_one_draw_lies_a_divergence_below_and_more_draws_come_closer():
    x, mu, log_sigma, evidence = _problem()
    wrong = [part.repeat(2000, 1) for part in (mu + 0.1, log_sigma + 0.3)]
    gaps = [(_bound(*wrong, x.repeat(2000), num_draws=K) - evidence.repeat(2000)) for K in (1, 5, 50)]
    divergence = gaussian.kl(mu + 0.1, log_sigma + 0.3, mu, log_sigma).mean().item()
    assert gaps[0].mean().item() == pytest.approx(-divergence, abs=4 * gaps[0].std().item() / math.sqrt(12_000))
    assert gaps[0].mean() < gaps[1].mean() < gaps[2].mean() < 0
    weights = gaps[2].exp()  # of 50 draws, 1 in the mean
    assert weights.mean().item() == pytest.approx(1.0, abs=4 * weights.std().item() / math.sqrt(12_000))


def test_the_generator_is_the_only_source_of_noise():
    x, mu, log_sigma, _ = _problem()
    before = torch.get_rng_state()
    first, again, other = (_bound(mu + 0.1, log_sigma, x, num_draws=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_name_of_the_bound_counts_its_draws():
    assert bound_estimator(1) == "evidence lower bound, 1 draw"
    assert bound_estimator(16) == "importance-weighted bound, 16 draws"
