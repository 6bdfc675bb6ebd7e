"""Separated attribute predictability: loops, codes whose score is known, and its intervals."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from genbench.core.metric import Evidence, LatentEvidence
from genbench.metrics._latents import train_and_test
from genbench.metrics.sap import SAP, sap


def _mixed(num=600, *, seed=0):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in (2, 3, 5)], axis=1)
    return factors + 0.6 * rng.normal(size=(num, 3)) @ (np.eye(3) + 0.5), factors


def test_accuracies_are_those_of_a_support_vector_machine_for_each_pair():
    codes, factors = _mixed()
    train, test = train_and_test(len(codes), seed=0)
    gaps = []
    for factor in factors.T:
        right = []
        for latent in codes.T[:, :, None]:
            machine = LinearSVC(C=0.01, class_weight="balanced", dual=True, max_iter=100_000, random_state=0)
            right.append(machine.fit(latent[train], factor[train]).score(latent[test], factor[test]))
        gaps.append(np.diff(np.sort(right)[-2:]).item())
    assert sap(codes, factors).value == pytest.approx(np.mean(gaps), abs=0.01)  # the dual stops within its tolerance


def test_squared_correlations_are_those_of_numpy_for_each_pair():
    codes, factors = _mixed()
    squares = np.corrcoef(codes.T, factors.T)[:3, 3:] ** 2
    expected = np.diff(np.sort(squares, axis=0)[-2:], axis=0).mean()
    assert sap(codes, factors, preset="continuous").value == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("preset", ["discrete", "continuous"])
def test_copies_have_no_gap_and_noise_nearly_none(preset):
    codes, factors = _mixed(1500)
    assert sap(np.concatenate([codes, codes], axis=1), factors, preset=preset).value == pytest.approx(0.0, abs=1e-12)
    noise = np.random.default_rng(3).normal(size=(1500, 3))
    assert sap(noise, factors, preset=preset).value < (0.1 if preset == "discrete" else 0.01)


def test_a_latent_for_each_factor_scores_one_of_its_correlation():
    factors = np.stack([axis.ravel() for axis in np.meshgrid(np.arange(3), np.arange(4))], axis=1)
    assert sap(factors.astype(np.float64), factors, preset="continuous").value == pytest.approx(1.0, abs=1e-12)


def test_a_latent_for_each_of_two_even_binary_factors_scores_a_half():
    """The right latent is never wrong, the other right every second time."""
    factors = np.random.default_rng(0).integers(0, 2, (3000, 2))
    assert sap(2.0 * factors - 1.0, factors).value == pytest.approx(0.5, abs=0.05)


def test_few_examples_give_few_values_all_of_them_multiples_of_a_right_answer_among_all():
    """What makes two weak models tie to the last digit."""
    rng = np.random.default_rng(5)
    factors = np.stack([rng.integers(0, size, 128) for size in (4, 6, 2, 5, 4)], axis=1)
    num_test = len(train_and_test(128, seed=0)[1])
    values = [sap(rng.normal(size=(128, 4)), factors).value for _ in range(12)]
    counts = np.array(values) * num_test * 5
    assert (num_test, 1 / (num_test * 5)) == (43, pytest.approx(0.00465, abs=5e-6))
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    assert len(set(counts.round())) < len(values)  # ties among codes that have nothing in common


def test_a_constant_latent_predicts_nothing():
    codes, factors = _mixed()
    dead = np.concatenate([codes[:, :1], np.full((600, 1), 3.0)], axis=1)
    expected = np.mean([np.corrcoef(codes[:, 0], factor)[0, 1] ** 2 for factor in factors.T])
    assert sap(dead, factors, preset="continuous").value == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("preset", ["discrete", "continuous"])
def test_order_of_latents_does_not_matter(preset):
    codes, factors = _mixed()
    assert sap(codes[:, [2, 0, 1]], factors, preset=preset).value == pytest.approx(
        sap(codes, factors, preset=preset).value, abs=1e-13
    )


def test_scale_does_not_matter_to_correlations():
    codes, factors = _mixed()
    changed = codes * np.array([0.1, -4.0, 64.0]) + 5.0
    found = sap(changed, factors, preset="continuous").value
    assert found == pytest.approx(sap(codes, factors, preset="continuous").value, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "runs"), [("continuous", 500), ("discrete", 200)])
def test_the_interval_holds_the_mean_estimate_95_times_in_100(preset, runs):
    found = [sap(*_mixed(1000, seed=seed), preset=preset, seed=seed) for seed in range(runs)]
    middle = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found]) <= 0.98


def test_the_score_comes_with_its_settings():
    codes, factors = (torch.from_numpy(part) for part in _mixed(200))
    (score,) = SAP().compute(Evidence(latents=LatentEvidence(codes=codes, factors=factors)))
    assert (score.name, score.better, score.protocol["preset"], score.protocol["seed"]) == (
        "sap",
        "higher",
        "discrete",
        0,
    )
    with pytest.raises(ValueError, match="known factors, found none"):
        SAP().compute(Evidence())
    with pytest.raises(ValueError, match="at least 2 latents, found 1"):
        sap(codes[:, :1], factors)
