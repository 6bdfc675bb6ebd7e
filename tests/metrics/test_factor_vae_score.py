"""The FactorVAE score: a loop over votes, codes whose score is known, and its interval."""

import numpy as np
import pytest
import torch

from genbench.core.metric import Evidence, LatentEvidence
from genbench.metrics.factor_vae_score import FactorVAEScore, factor_vae_score


def _mixed(num=1500, *, seed=0, noise=3.0):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in (3, 6, 8)], axis=1)
    return factors + noise * rng.normal(size=(num, 3)) @ (np.eye(3) + 0.5), factors


def _by_loop(codes, factors, *, batch_size, num_train, num_test, seed):
    """One vote at a time, with draws of its own."""
    rng = np.random.default_rng(seed)
    whole = codes.var(axis=0, ddof=1)

    def vote():
        k, row = rng.integers(factors.shape[1]), rng.integers(len(codes))
        alike = np.flatnonzero(factors[:, k] == factors[row, k])
        batch = codes[rng.choice(alike, batch_size)]
        return int((batch.var(axis=0, ddof=1) / whole).argmin()), k

    counts = np.zeros((codes.shape[1], factors.shape[1]))
    for _ in range(num_train):
        counts[vote()] += 1
    answer = counts.argmax(axis=1)
    return np.mean([answer[latent] == k for latent, k in (vote() for _ in range(num_test))])


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_the_score_equals_a_loop_over_votes_within_the_noise_of_votes(noise):
    codes, factors = _mixed(noise=noise)
    settings = {"batch_size": 16, "num_train": 3000, "num_test": 5000}
    ours = np.mean([factor_vae_score(codes, factors, **settings, seed=seed).value for seed in range(3)])
    looped = np.mean([_by_loop(codes, factors, **settings, seed=seed) for seed in range(3)])
    assert ours == pytest.approx(looped, abs=5.0 * np.sqrt(0.25 / 15_000 * 2))


def test_a_latent_for_each_factor_scores_one_and_so_do_two():
    _, factors = _mixed()
    codes = factors.astype(np.float64)
    assert factor_vae_score(codes, factors, num_train=500, num_test=500).value == 1.0
    assert factor_vae_score(np.concatenate([codes, codes], axis=1), factors, num_train=500, num_test=500).value == 1.0


def test_noise_scores_as_chance_does():
    _, factors = _mixed(6000)
    noise = np.random.default_rng(1).normal(size=(6000, 5))
    found = factor_vae_score(noise, factors, num_train=2000, num_test=4000)
    assert found.value == pytest.approx(1 / 3, abs=0.06)


def test_one_latent_for_all_factors_gets_the_factor_shared_most_often():
    _, factors = _mixed()
    assert factor_vae_score(np.random.default_rng(0).normal(size=(1500, 1)), factors).value == pytest.approx(
        1 / 3, abs=0.03
    )


def test_a_constant_latent_casts_no_vote():
    """Its variance over its variance is 0 / 0; numpy's argmin would choose it each time."""
    _, factors = _mixed()
    codes = np.concatenate([np.zeros((1500, 1)), factors], axis=1).astype(np.float32)
    assert factor_vae_score(codes, factors, num_train=500, num_test=500).value == 1.0


def test_codes_that_are_all_constant_score_zero():
    _, factors = _mixed()
    found = factor_vae_score(np.ones((1500, 3)), factors)
    assert (found.value, found.ci95[0]) == (0.0, 0.0)
    assert "every latent is constant" in found.how


def test_scale_and_shift_of_latents_do_not_matter():
    codes, factors = _mixed()
    settings = {"num_train": 500, "num_test": 500}
    changed = codes * np.array([0.5, 4.0, 64.0]) + 8.0
    assert factor_vae_score(changed, factors, **settings).value == factor_vae_score(codes, factors, **settings).value


def test_the_seed_decides_the_draws():
    codes, factors = _mixed()
    first, again, other = (factor_vae_score(codes, factors, num_train=500, num_test=500, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.value != other.value


@pytest.mark.slow
def test_the_interval_holds_the_mean_estimate_95_times_in_100():
    found = [factor_vae_score(*_mixed(2000, seed=seed), num_train=800, num_test=800, seed=seed) for seed in range(200)]
    middle = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found]) <= 0.985


@pytest.mark.slow
def test_half_of_the_votes_in_blocks_tell_the_error_that_all_of_them_do(monkeypatch):
    """The noise of votes, more of it with fewer, is brought to that of the votes that are scored."""
    errors = {}
    for share in (0.5, 1.0, 4.0):
        monkeypatch.setattr("genbench.metrics.factor_vae_score.BLOCK_VOTES", share)
        found = [factor_vae_score(*_mixed(seed=seed), num_train=500, num_test=500, seed=seed) for seed in range(60)]
        errors[share] = np.sqrt(np.mean([one.stderr**2 for one in found]))
    assert errors[0.5] == pytest.approx(errors[4.0], rel=0.15)
    assert errors[1.0] == pytest.approx(errors[4.0], rel=0.15)


def test_values_too_rare_for_blocks_leave_an_interval_over_votes_that_says_so():
    factors = np.stack([np.arange(40) // 2, np.arange(40) % 2], axis=1)
    found = factor_vae_score(factors.astype(np.float64), factors, num_train=200, num_test=200)
    assert found.how == "Wilson over votes; examples held fixed"
    assert found.ci95[0] <= found.value <= found.ci95[1]


def test_a_factor_without_two_examples_of_any_value_is_refused():
    factors = np.stack([np.arange(40), np.arange(40) % 2], axis=1)
    with pytest.raises(ValueError, match="two examples that share a value of factor 0"):
        factor_vae_score(np.random.default_rng(0).normal(size=(40, 2)), factors)


def test_the_score_comes_with_its_settings():
    codes, factors = (torch.from_numpy(part) for part in _mixed(300))
    metric = FactorVAEScore(num_train=200, num_test=100)
    (score,) = metric.compute(Evidence(latents=LatentEvidence(codes=codes, factors=factors)))
    assert (score.name, score.unit) == ("factor_vae_score", "share")
    assert score.protocol == {
        "factors": "3 unnamed",
        "num_examples": 300,
        "batch_size": 64,
        "num_train": 200,
        "num_test": 100,
        "seed": 0,
    }
    with pytest.raises(ValueError, match="known factors, found none"):
        metric.compute(Evidence())
    with pytest.raises(ValueError, match="expected at least 2, 1 and 10"):
        FactorVAEScore(batch_size=1)
