import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.prob.frechet import (
    covariance_of,
    frechet_bias,
    frechet_distance,
    frechet_distance_to,
    frechet_standard_error,
    transport_map,
)


def _random_covariance(random: np.random.Generator, size: int) -> np.ndarray:
    root = random.normal(size=(size, size))
    return root @ root.T / size + 0.1 * np.eye(size)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), covariance_of(features)


def test_distance_between_shifted_gaussians_is_the_squared_shift():
    random = np.random.default_rng(0)
    cov = _random_covariance(random, 20)
    shift = random.normal(size=20)
    assert frechet_distance(np.zeros(20), cov, shift, cov) == pytest.approx(shift @ shift, rel=1e-12)


def test_distance_between_commuting_gaussians_is_the_closed_form():
    random = np.random.default_rng(1)
    rotation = np.linalg.qr(random.normal(size=(30, 30)))[0]
    one, two = random.uniform(0.5, 2.0, 30), random.uniform(0.5, 2.0, 30)
    found = frechet_distance(np.zeros(30), rotation * one @ rotation.T, np.zeros(30), rotation * two @ rotation.T)
    assert found == pytest.approx(((np.sqrt(one) - np.sqrt(two)) ** 2).sum(), rel=1e-9)


def test_distance_in_one_dimension_is_that_of_the_standard_deviations():
    found = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[9.0]]))
    assert found == pytest.approx(4.0 + 1.0, rel=1e-14)


@pytest.mark.parametrize("num", [40, 64, 65, 70, 2000], ids=lambda num: f"N={num}")
def test_distance_of_a_set_from_itself_vanishes(num):
    features = np.random.default_rng(2).normal(size=(num, 64)) * np.geomspace(1.0, 1e-6, 64)
    for ddof in (0, 1):
        moments = features.mean(axis=0), covariance_of(features, ddof=ddof)
        assert 0.0 <= frechet_distance(*moments, *moments) <= 1e-9
        assert 0.0 <= frechet_distance_to(features, *moments, ddof=ddof) <= 1e-9


def test_features_of_low_rank_give_the_same_as_their_projection():
    random = np.random.default_rng(3)
    low1, low2 = random.normal(size=(50, 5)), random.normal(size=(300, 5)) * 1.5 + 0.3
    basis = np.linalg.qr(random.normal(size=(40, 40)))[0][:5]
    expected = frechet_distance_to(low1, *_moments(low2))
    assert frechet_distance_to(low1 @ basis, *_moments(low2 @ basis)) == pytest.approx(expected, rel=1e-9)


def test_few_samples_give_the_same_by_features_and_by_moments():
    random = np.random.default_rng(4)
    few, many = random.normal(size=(30, 100)), random.normal(size=(500, 100))
    by_moments = frechet_distance(*_moments(few), *_moments(many))
    assert frechet_distance_to(few, *_moments(many)) == pytest.approx(by_moments, rel=1e-8)


def test_distance_is_unchanged_by_a_common_rotation_and_shift_and_by_order():
    random = np.random.default_rng(5)
    one, two = random.normal(size=(200, 16)), random.normal(size=(300, 16)) * 1.2
    rotation, shift = np.linalg.qr(random.normal(size=(16, 16)))[0], random.normal(size=16)
    expected = frechet_distance_to(one, *_moments(two))
    assert frechet_distance_to(one @ rotation + shift, *_moments(two @ rotation + shift)) == pytest.approx(
        expected, rel=1e-9
    )
    assert frechet_distance_to(two, *_moments(one)) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12))
def test_transport_map_carries_one_covariance_to_the_other(seed, size, rank):
    random = np.random.default_rng(seed)
    cov1 = _random_covariance(random, size)
    root = random.normal(size=(size, rank))
    found = transport_map(cov1, root @ root.T)
    np.testing.assert_allclose(found @ cov1 @ found, root @ root.T, atol=1e-8 * np.abs(root @ root.T).max() + 1e-8)
    assert np.linalg.eigvalsh(found).min() > -1e-7


def test_features_that_are_not_finite_are_refused():
    features = np.ones((10, 3))
    features[4, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        frechet_distance_to(features, np.zeros(3), np.eye(3))


def test_standard_error_of_a_shift_in_one_dimension_is_the_closed_form():
    """With equal variances only the mean's term is left: 2 |shift| sd / sqrt(N)."""
    features = np.random.default_rng(6).normal(size=(4000, 1))
    spread = features.std(ddof=1)
    moments = features.mean(axis=0) + 3.0, np.array([[spread**2]])
    assert frechet_standard_error(features, *moments) == pytest.approx(6.0 * spread / np.sqrt(4000), rel=1e-6)


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 1.5), (0.2, 0.7)])
def test_standard_error_matches_the_spread_over_repetitions(shift, scale):
    random = np.random.default_rng(7)
    reference = np.zeros(8), np.eye(8)
    values, errors = [], []
    for _ in range(200):
        features = shift + scale * random.standard_t(6, size=(300, 8))
        values.append(frechet_distance_to(features, *reference))
        errors.append(frechet_standard_error(features, *reference))
    assert np.mean(errors) / np.std(values, ddof=1) == pytest.approx(1.0, abs=0.2)


def test_bias_is_what_remains_in_the_mean_over_gaussian_draws():
    random = np.random.default_rng(8)
    cov1, cov2 = _random_covariance(random, 10), _random_covariance(random, 10)
    root1, root2 = np.linalg.cholesky(cov1), np.linalg.cholesky(cov2)
    true = frechet_distance(np.zeros(10), cov1, np.zeros(10), cov2)
    draws = [
        frechet_distance_to(random.normal(size=(200, 10)) @ root1.T, *_moments(random.normal(size=(400, 10)) @ root2.T))
        for _ in range(400)
    ]
    excess, error = np.mean(draws) - true, np.std(draws, ddof=1) / 20.0
    bias = frechet_bias(cov1, cov2, num1=200, num2=400)
    assert excess > 10.0 * error
    assert abs(excess - bias) < 3.0 * error + 0.1 * bias
