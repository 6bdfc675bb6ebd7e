"""Extrapolation to infinitely many samples."""

import numpy as np
import pytest
import torch

from genbench.core.features import Statistics
from genbench.core.metric import Evidence, FeatureEvidence
from genbench.metrics.frechet_infinity import FrechetInfinity, frechet_infinity
from genbench.prob.frechet import frechet_distance_to


def _true(size):
    return Statistics(np.zeros(size), np.eye(size), 10**6, {}, "x", "train", "y")


def _samples(num, size, seed=0):
    return np.random.default_rng(seed).normal(size=(num, size)) * 1.1


def _evidence(samples, **more):
    return Evidence(
        features=FeatureEvidence(
            samples=samples, reference=None, statistics=_true(8), extractor="inception_v3", protocol={}, **more
        )
    )


def test_line_through_seeded_subsets_is_the_least_squares_line():
    """The peers' rule step by step: subsets afresh, numpy's polynomial fit, value at 1/n = 0."""
    samples, random = _samples(400, 6), np.random.default_rng(5)
    sizes = np.linspace(100, 400, 15).astype(int)
    values = [frechet_distance_to(samples[random.permutation(400)[:size]], np.zeros(6), np.eye(6)) for size in sizes]
    slope, intercept = np.polyfit(1.0 / sizes, values, 1)
    found = frechet_infinity(samples, _true(6), min_samples=100, seed=5)
    assert found.value == pytest.approx(intercept, rel=1e-9)
    assert slope > 0.0
    assert found.ci95[0] < found.value < found.ci95[1]


def test_same_seed_same_value_and_another_seed_another():
    samples = _samples(300, 6)
    values = [frechet_infinity(samples, _true(6), min_samples=100, seed=seed).value for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.slow
def test_extrapolation_removes_the_bias_of_the_samples_and_its_interval_covers_the_truth():
    true, size = 20 * 0.01, 20
    plain, found, hits = [], [], 0
    for seed in range(150):
        samples = _samples(600, size, seed)
        estimate = frechet_infinity(samples, _true(size), min_samples=150, seed=seed)
        plain.append(frechet_distance_to(samples, np.zeros(size), np.eye(size)))
        found.append(estimate.value)
        hits += estimate.ci95[0] < true < estimate.ci95[1]
    assert abs(np.mean(found) - true) < 0.15 * (np.mean(plain) - true)
    assert hits / 150 > 0.9


def test_preset_lets_fewer_samples_do():
    samples = torch.from_numpy(_samples(400, 8))
    with pytest.raises(ValueError, match="more than 5000 samples, found 400"):
        FrechetInfinity().compute(_evidence(samples))
    (score,) = FrechetInfinity(preset="dgm-eval").compute(_evidence(samples))
    assert score.name == "fid_infinity"
    assert (score.protocol["min_samples"], score.protocol["num_points"]) == (40, 15)
    assert score.stderr > 0.0


def test_moments_alone_and_senseless_settings_are_refused():
    with pytest.raises(ValueError, match="features of the samples, found their moments only"):
        FrechetInfinity().compute(_evidence(None, sample_statistics=_true(8)))
    with pytest.raises(ValueError, match="3 points"):
        FrechetInfinity(num_points=2)
    with pytest.raises(ValueError, match="at least 2 samples"):
        frechet_infinity(_samples(10, 2), _true(2), min_samples=1)
