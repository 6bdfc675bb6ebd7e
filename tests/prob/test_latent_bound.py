"""The importance-weighted bound, against a linear Gaussian model whose evidence is known."""

import math

import pytest
import torch
from torch import Generator, Tensor

from genbench.prob import gaussian
from genbench.prob.latent_bound import bound_estimator, draws, importance_weighted_bound, log_weights
from genbench.prob.likelihood import importance_weighted

S = 0.4


def _problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x | z ~ N(2 z, S^2): data, the exact posterior's moments and the log-evidence of each."""
    x = torch.linspace(-3.0, 3.0, 6, dtype=torch.float64)
    precision = 1.0 + 4.0 / S**2
    mu, log_sigma = 2.0 * x / S**2 / precision, torch.full_like(x, -0.5 * math.log(precision))
    evidence = gaussian.log_prob(x, torch.zeros_like(x), torch.full_like(x, 0.5 * math.log(4.0 + S**2)))
    return x, mu.unsqueeze(1), log_sigma.unsqueeze(1), evidence


def _log_prob_given(x: Tensor, z: Tensor) -> Tensor:
    log_s = torch.tensor(math.log(S), dtype=torch.float64)
    return gaussian.log_prob(x.repeat(len(z) // len(x)), 2.0 * z.squeeze(1), log_s)


def _bound(
    mu: Tensor, log_sigma: Tensor, x: Tensor, *, num_draws: int, seed: int = 0, draws_at_once: int = 1
) -> Tensor:
    return importance_weighted_bound(
        mu,
        log_sigma,
        log_prob_given=lambda z: _log_prob_given(x, z),
        num_draws=num_draws,
        generator=Generator().manual_seed(seed),
        draws_at_once=draws_at_once,
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


@pytest.mark.parametrize("draws_at_once", [1, 4, 50, 64])
def test_draws_decoded_together_give_the_same_bound_and_ask_for_no_more_at_once(draws_at_once):
    x, mu, log_sigma, evidence = _problem()
    torch.testing.assert_close(
        _bound(mu, log_sigma, x, num_draws=50, draws_at_once=draws_at_once), evidence, rtol=0, atol=1e-12
    )
    asked: list[int] = []

    def log_prob_given(z: Tensor) -> Tensor:
        asked.append(len(z))
        return _log_prob_given(x, z)

    generator = Generator().manual_seed(0)
    importance_weighted_bound(
        mu,
        log_sigma,
        log_prob_given=log_prob_given,
        num_draws=50,
        generator=generator,
        draws_at_once=draws_at_once,
    )
    assert sum(asked) == 50 * len(x)
    assert max(asked) == min(draws_at_once, 50) * len(x)


def test_draws_decoded_together_are_weighed_against_their_own_example():
    """All draws at once are one call of `log_weights`, and each weight is that of its example alone."""
    x, mu, log_sigma, _ = _problem()
    found = _bound(mu + 0.1, log_sigma + 0.3, x, num_draws=12, draws_at_once=12)
    z = draws(mu + 0.1, log_sigma + 0.3, num_draws=12, generator=Generator().manual_seed(0))
    apart = [
        log_weights(
            z[:, i : i + 1],
            mu[i : i + 1] + 0.1,
            log_sigma[i : i + 1] + 0.3,
            log_prob_given=lambda codes, i=i: _log_prob_given(x[i : i + 1], codes),
        )
        for i in range(len(x))
    ]
    torch.testing.assert_close(found, importance_weighted(torch.cat(apart, dim=1)), rtol=0, atol=1e-12)


def test_with_five_thousand_draws_a_wrong_posterior_all_but_gives_the_evidence():
    x, mu, log_sigma, evidence = _problem()
    one, many = (_bound(mu + 0.1, log_sigma + 0.3, x, num_draws=K, draws_at_once=500) for K in (1, 5000))
    assert (many - evidence).abs().max() < 0.05
    assert (many - evidence).abs().mean() < 0.1 * (one - evidence).abs().mean()


@pytest.mark.parametrize("wrong", [{"num_draws": 0}, {"num_draws": 3, "draws_at_once": 0}])
def test_a_bound_without_draws_is_refused(wrong):
    x, mu, log_sigma, _ = _problem()
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        _bound(mu, log_sigma, x, **wrong)


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
