"""Disentanglement, completeness and informativeness: the definition by loop, codes whose scores are known."""

import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier

from genbench.core.metric import Evidence, LatentEvidence
from genbench.metrics._latents import train_and_test
from genbench.metrics.dci import DCI, completeness, dci, disentanglement


def _mixed(num=300, *, seed=0, noise=0.4):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in (2, 3)], axis=1)
    return factors + noise * rng.normal(size=(num, 2)) @ (np.eye(2) + 0.3), factors


def _entropy(shares, base):
    return -sum(p * math.log(p, base) for p in shares if p > 0)


def test_both_scores_are_the_weighted_entropies_of_the_definition():
    importances = np.random.default_rng(0).random((5, 3)) ** 3
    total = importances.sum()
    by_latent = sum((1 - _entropy(row / row.sum(), 3)) * row.sum() / total for row in importances)
    by_factor = sum((1 - _entropy(column / column.sum(), 5)) * column.sum() / total for column in importances.T)
    assert disentanglement(importances) == pytest.approx(by_latent, abs=1e-9)
    assert completeness(importances) == pytest.approx(by_factor, abs=1e-9)


def test_importances_whose_scores_are_plain():
    assert disentanglement(np.eye(3)) == pytest.approx(1.0, abs=1e-9)
    assert completeness(np.eye(3)) == pytest.approx(1.0, abs=1e-9)
    twice = np.concatenate([np.eye(2), np.eye(2)])  # each factor held by two of four latents
    assert disentanglement(twice) == pytest.approx(1.0, abs=1e-9)
    assert completeness(twice) == pytest.approx(0.5, abs=1e-9)
    assert disentanglement(twice.T) == pytest.approx(0.5, abs=1e-9)
    assert disentanglement(np.ones((4, 3))) == pytest.approx(0.0, abs=1e-9)
    assert disentanglement(np.zeros((4, 3))) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_gradient_boosting_gives_the_importances_of_a_loop_over_factors():
    codes, factors = _mixed()
    train, test = train_and_test(len(codes), seed=0)
    scaled = (codes - codes.mean(0)) / codes.std(0)
    trees = [GradientBoostingClassifier(random_state=0).fit(scaled[train], factors[train, k]) for k in range(2)]
    importances = np.stack([tree.feature_importances_ for tree in trees], axis=1)
    right = [tree.score(scaled[test], factors[test, k]) for k, tree in enumerate(trees)]
    found = dci(codes, factors)
    assert found["disentanglement"].value == pytest.approx(disentanglement(importances), abs=1e-12)
    assert found["completeness"].value == pytest.approx(completeness(importances), abs=1e-12)
    assert found["informativeness"].value == pytest.approx(np.mean(right), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("regressor", ["gradient_boosting", "random_forest", "lasso"])
def test_a_latent_for_each_factor_is_perfect_and_noise_worthless(regressor):
    _, factors = _mixed(600)
    best = dci(factors.astype(np.float64), factors, regressor=regressor)
    assert all(0.85 < one.value <= 1.0 for one in best.values()), best
    noise = np.random.default_rng(0).normal(size=(600, 2))
    worst = dci(noise, factors, regressor=regressor)
    assert worst["disentanglement"].value < 0.15
    assert worst["informativeness"].value < 0.55


def test_a_factor_held_twice_is_less_complete():
    _, factors = _mixed()
    codes = np.concatenate([factors, factors], axis=1) + 0.3 * np.random.default_rng(0).normal(size=(300, 4))
    found = dci(codes, factors, regressor="lasso")
    assert found["disentanglement"].value > 0.6
    assert found["completeness"].value < found["disentanglement"].value - 0.2


@pytest.mark.slow
def test_scale_and_order_of_latents_do_not_matter_to_lasso():
    codes, factors = _mixed()
    first = dci(codes, factors, regressor="lasso")
    second = dci(codes[:, ::-1] * np.array([100.0, 0.01]), factors, regressor="lasso")
    for name, one in first.items():
        assert second[name].value == pytest.approx(one.value, abs=0.01)  # coordinate descent stops within 1e-4


@pytest.mark.slow
def test_the_interval_holds_the_mean_estimate_at_least_92_times_in_100():
    found = [dci(*_mixed(300, seed=seed), regressor="lasso", seed=seed) for seed in range(40)]
    for name in found[0]:
        middle = np.mean([one[name].value for one in found])
        assert np.mean([one[name].ci95[0] <= middle <= one[name].ci95[1] for one in found]) >= 0.92, name


@pytest.mark.slow
def test_blocks_of_few_stages_tell_the_spread_of_gradient_boosting():
    """The importances of a block come from 15 stages, those of the value from 100."""
    found = [dci(*_mixed(450, seed=seed), seed=seed) for seed in range(40)]
    assert found[0]["disentanglement"].how == "Student over 5 disjoint blocks of training examples, of 15 stages each"
    for name in ("disentanglement", "completeness"):
        values = np.array([one[name].value for one in found])
        error = np.sqrt(np.mean([one[name].stderr ** 2 for one in found]))
        assert 0.7 < error / values.std(ddof=1) < 1.6, name
        held = [one[name].ci95[0] <= values.mean() <= one[name].ci95[1] for one in found]
        assert np.mean(held) >= 0.92, name


def test_too_few_examples_or_values_are_refused():
    codes, factors = _mixed()
    with pytest.raises(ValueError, match="at least 150 examples, found 149"):
        dci(codes[:149], factors[:149])
    factors[:, 0] = 0
    factors[0, 0] = 1
    with pytest.raises(ValueError, match="need 2 values of factor 0"):
        dci(codes, factors, regressor="lasso")


def test_three_scores_come_with_the_regressor():
    codes, factors = (torch.from_numpy(part) for part in _mixed())
    scores = DCI(regressor="lasso").compute(Evidence(latents=LatentEvidence(codes=codes, factors=factors)))
    assert [score.name for score in scores] == ["disentanglement", "completeness", "informativeness"]
    assert all(score.protocol["regressor"] == "lasso" and score.ci95 is not None for score in scores)
    assert scores[0].interval == "Student over 5 disjoint blocks of training examples"
    with pytest.raises(ValueError, match="known factors, found none"):
        DCI().compute(Evidence())
