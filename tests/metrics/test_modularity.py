"""Modularity and explicitness: loops with scikit-learn, codes whose scores are known, and their intervals."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score

from genbench.core.metric import Evidence, LatentEvidence
from genbench.metrics._latents import train_and_test
from genbench.metrics.modularity import Modularity, _placements, explicitness, modularity


def _grid(*sizes):
    return np.stack([axis.ravel() for axis in np.meshgrid(*[np.arange(size) for size in sizes])], axis=1)


def _mixed(num=600, *, seed=0):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in (3, 6, 8)], axis=1)
    return factors + 0.6 * rng.normal(size=(num, 3)) @ (np.eye(3) + 0.5), factors


def _modularity_by_loop(codes, factors):
    scores = []
    for latent in codes.T:
        bins = np.digitize(latent, np.histogram(latent, 20)[1][:-1])
        told = np.array([mutual_info_score(factor, bins) for factor in factors.T])
        best = told.argmax()
        template = np.where(np.arange(len(told)) == best, told[best], 0.0)
        scores.append(1.0 - ((told - template) ** 2).sum() / (told[best] ** 2 * (len(told) - 1)))
    return np.mean(scores)


@pytest.mark.parametrize("seed", range(3))
def test_modularity_equals_the_distance_from_an_ideal_template_by_loop(seed):
    codes, factors = _mixed(seed=seed)
    assert modularity(codes, factors).value == pytest.approx(_modularity_by_loop(codes, factors), abs=1e-12)


def test_a_latent_for_each_factor_is_modular_even_twice():
    factors = _grid(3, 6, 8)
    codes = factors.astype(np.float64)
    assert modularity(codes, factors).value == pytest.approx(1.0, abs=1e-12)
    assert modularity(np.concatenate([codes, codes], axis=1), factors).value == pytest.approx(1.0, abs=1e-12)


def test_a_latent_that_tells_two_factors_alike_is_not_modular():
    """I is the same for both factors: 1 - I^2 / I^2 = 0."""
    factors = _grid(4, 4)
    assert modularity(factors.sum(1, keepdims=True).astype(np.float64), factors).value == pytest.approx(0.0, abs=1e-12)


def test_a_latent_that_tells_nothing_scores_zero():
    factors = _grid(4, 4)
    codes = np.stack([factors[:, 0], np.zeros(16)], axis=1).astype(np.float64)
    assert modularity(codes, factors).value == pytest.approx(0.5, abs=1e-12)


def test_order_and_scale_of_latents_do_not_matter_to_modularity():
    codes, factors = _mixed()
    changed = codes[:, [2, 0, 1]] * np.array([0.5, 4.0, 64.0])
    assert modularity(changed, factors).value == pytest.approx(modularity(codes, factors).value, abs=1e-13)


def test_explicitness_is_the_mean_area_under_the_roc_curve_of_held_out_examples():
    codes, factors = _mixed()
    train, test = train_and_test(len(codes), seed=0)
    scaled = (codes - codes[train].mean(0)) / codes[train].std(0)
    areas = []
    for k in range(3):
        classifier = LogisticRegression(max_iter=1000).fit(scaled[train], factors[train, k])
        shown = np.eye(factors[:, k].max() + 1)[factors[test, k]]
        areas.append(roc_auc_score(shown, classifier.predict_proba(scaled[test])))
    assert explicitness(codes, factors).value == pytest.approx(np.mean(areas), abs=1e-12)


def test_explicitness_is_one_for_plain_codes_and_a_half_for_noise():
    _, factors = _mixed(1500)
    assert explicitness(np.eye(20)[factors].reshape(1500, -1), factors).value == pytest.approx(1.0, abs=1e-12)
    noise = np.random.default_rng(0).normal(size=(1500, 4))
    assert explicitness(noise, factors).value == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
def test_the_interval_of_modularity_holds_the_mean_estimate_95_times_in_100():
    found = [modularity(*_mixed(900, seed=seed)) for seed in range(500)]
    middle = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found]) <= 0.98


@pytest.mark.slow
def test_the_interval_of_explicitness_holds_the_area_of_its_classifiers_on_many_fresh_examples_95_times_in_100():
    held = []
    for seed in range(40):
        codes, factors = _mixed(400, seed=seed)
        fresh, shown = _mixed(2000, seed=10_000 + seed)
        train = train_and_test(400, seed=0)[0]
        middle, spread = codes[train].mean(0), codes[train].std(0)
        areas = [
            _placements(
                (codes[train] - middle) / spread, factors[train, k], (fresh - middle) / spread, shown[:, k]
            ).mean()
            for k in range(3)
        ]
        low, high = explicitness(codes, factors).ci95
        held.append(low <= np.mean(areas) <= high)
    assert np.mean(held) >= 0.88  # at least 36 of 40; a true 95 % gives fewer once in twenty


def test_a_value_that_only_the_test_part_shows_is_refused():
    codes, factors = _mixed(60)
    factors[train_and_test(60, seed=0)[1][0], 0] = 99
    with pytest.raises(ValueError, match="every factor value in both parts"):
        explicitness(codes, factors)


def test_one_factor_is_too_few():
    codes, factors = _mixed()
    with pytest.raises(ValueError, match="at least 2 factors, found 1"):
        modularity(codes, factors[:, :1])


def test_two_scores_come_with_their_settings():
    codes, factors = (torch.from_numpy(part) for part in _mixed())
    first, second = Modularity().compute(Evidence(latents=LatentEvidence(codes=codes, factors=factors)))
    assert (first.name, second.name) == ("modularity", "explicitness")
    assert first.protocol["num_bins"] == 20
    assert second.protocol["classifier"] == "logistic regression"
    assert first.ci95 is not None
    assert second.ci95 is not None
    with pytest.raises(ValueError, match="known factors, found none"):
        Modularity().compute(Evidence())
