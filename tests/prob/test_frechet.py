"""Closed forms of the distance, and simulations of its error and bias."""

import numpy as np
import pytest
import torch
from scipy import linalg

from genbench.prob.frechet import (
    covariance_of,
    frechet,
    frechet_between,
    frechet_bias,
    frechet_distance,
    frechet_distance_to,
    frechet_distances_to,
    frechet_influence,
    frechet_standard_error,
    two_sample_standard_error,
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


def _exact_cross(one, two):
    """tr (S1 S2)^(1/2) from the triangular factors of centred features, whose covariance is never formed."""
    factors = [linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1), mode="r")[0] for x in (one, two)]
    return linalg.svdvals(factors[0] @ factors[1].T).sum()


def _exact(one, two):
    shift = one.mean(0) - two.mean(0)
    return shift @ shift + one.var(0, ddof=1).sum() + two.var(0, ddof=1).sum() - 2.0 * _exact_cross(one, two)


def _transport_map(cov1, cov2):
    """The textbook form, by square roots of matrices."""
    values, vectors = np.linalg.eigh(cov1)
    half, back = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
    inner, rotation = np.linalg.eigh(half @ cov2 @ half)
    return back @ (rotation * np.sqrt(np.maximum(inner, 0.0))) @ rotation.T @ back


@pytest.mark.parametrize("decades", [0, 3, 6, 9])
@pytest.mark.parametrize("order", ["falling", "rising", "mixed"])
def test_distance_is_exact_for_variances_over_many_decades(decades, order):
    """Rounding of the largest eigenvalue must not show in the roots of the small ones."""
    random = np.random.default_rng(9)
    scale = np.sqrt(np.geomspace(1.0, 10.0**-decades, 60))
    scale = {"falling": scale, "rising": scale[::-1], "mixed": random.permutation(scale)}[order]
    one, two = random.normal(size=(300, 60)) * scale, 1.1 * random.normal(size=(300, 60)) * scale
    assert frechet_distance(*_moments(one), *_moments(two)) == pytest.approx(_exact(one, two), rel=1e-9)
    assert frechet_distance(*_moments(two), *_moments(one)) == pytest.approx(_exact(one, two), rel=1e-9)


@pytest.mark.parametrize("noise", [1e-3, 1e-5])
def test_distance_is_exact_for_features_that_nearly_repeat_each_other(noise):
    random = np.random.default_rng(10)

    def doubled():
        half = random.normal(size=(400, 30))
        return np.concatenate([half, half + noise * random.normal(size=(400, 30))], axis=1)

    one, two = doubled(), doubled()
    assert frechet_distance(*_moments(one), *_moments(two)) == pytest.approx(_exact(one, two), rel=1e-9)


@pytest.mark.parametrize(("num1", "num2"), [(30, 400), (400, 30), (30, 20), (61, 62), (60, 60)])
def test_distance_is_exact_where_there_are_no_more_samples_than_features(num1, num2):
    random = np.random.default_rng(11)
    one, two = random.normal(size=(num1, 60)), 1.2 * random.normal(size=(num2, 60)) + 0.1
    exact = _exact(one, two)
    assert frechet_distance_to(one, *_moments(two)) == pytest.approx(exact, rel=1e-8)
    assert frechet_distance(*_moments(one), *_moments(two)) == pytest.approx(exact, rel=1e-8)


def test_null_space_of_few_samples_adds_nothing_where_the_square_root_of_a_product_does():
    """Eigenvalues of S1 S2 that are zero come out near 1e-16, and their roots near 1e-8 each."""
    random = np.random.default_rng(12)
    one, two = random.normal(size=(100, 300)), random.normal(size=(120, 300))
    exact = _exact(one, two)
    (mean1, cov1), (mean2, cov2) = _moments(one), _moments(two)
    by_product = (mean1 - mean2) @ (mean1 - mean2) + np.trace(cov1) + np.trace(cov2)
    by_product -= 2.0 * np.sqrt(np.linalg.eigvals(cov1 @ cov2).astype(complex)).real.sum()
    assert abs(frechet_distance_to(one, mean2, cov2) / exact - 1.0) < 1e-11
    assert abs(by_product / exact - 1.0) > 1e-9
    assert 0.0 <= frechet_distance_to(one, mean1, cov1) <= 1e-9


def test_exact_copies_and_constant_features_are_no_obstacle():
    random = np.random.default_rng(13)
    one, two = random.normal(size=(300, 20)), random.normal(size=(300, 20)) * 1.3
    for features in (one, two):
        features[:, 5] = 0.25
        features[:, 7] = features[:, 3]
    assert frechet_distance(*_moments(one), *_moments(two)) == pytest.approx(_exact(one, two), rel=1e-9)
    assert frechet_distance_to(np.ones((50, 4)), np.ones(4) * 3.0, np.zeros((4, 4))) == pytest.approx(16.0)
    assert frechet_distance_to(np.ones((3, 4)), np.ones(4), np.eye(4)) == pytest.approx(4.0)


def _newton_schulz(product, *, residual):
    """tr A^(1/2) by the coupled iteration, stopped at a relative residual |Y^2 - A| / |A|."""
    norm = np.linalg.norm(product)
    y, z, one = product / norm, np.eye(len(product)), np.eye(len(product))
    for _ in range(200):
        step = 0.5 * (3.0 * one - z @ y)
        y, z = y @ step, step @ z
        if np.linalg.norm(y @ y * norm - product) < residual * norm:
            break
    return np.trace(y) * np.sqrt(norm)


def test_distance_keeps_the_small_roots_that_an_iteration_stopped_at_a_residual_drops():
    """A residual of 1e-5, as one library allows, is all of the small eigenvalues: percents of the distance."""
    random = np.random.default_rng(14)
    one = random.normal(size=(600, 64)) * np.geomspace(1.0, 1e-2, 64)
    two = random.normal(size=(600, 64)) * np.geomspace(1.0, 1e-2, 64)
    (mean1, cov1), (mean2, cov2) = _moments(one), _moments(two)
    exact = _exact(one, two)
    stopped = (
        (mean1 - mean2) @ (mean1 - mean2) + np.trace(cov1 + cov2) - 2.0 * _newton_schulz(cov1 @ cov2, residual=1e-5)
    )
    assert frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(exact, rel=1e-9)
    assert abs(stopped / exact - 1.0) > 1e-3
    assert frechet_distance(mean1, cov1, mean1, cov1) < 1e-9
    assert 2.0 * (np.trace(cov1) - _newton_schulz(cov1 @ cov1, residual=1e-5)) > 1e-5


def test_no_square_root_of_a_matrix_is_asked_of_scipy(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("sqrtm is going away")

    monkeypatch.setattr(linalg, "sqrtm", refuse)
    one = np.random.default_rng(15).normal(size=(50, 5))
    assert frechet(one, np.zeros(5), np.eye(5)).value > 0.0


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_low_precision_is_promoted_first(kind):
    features = (np.random.default_rng(16).normal(size=(500, 12)) * 3.0 + 40.0).astype(kind)
    reference = np.full(12, 40.0), np.eye(12)
    exact = frechet_distance_to(features.astype(np.float64), *reference)
    assert frechet_distance_to(features, *reference) == pytest.approx(exact, rel=1e-13)
    assert frechet_distance_to(torch.from_numpy(features), *reference) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("num", [400, 25], ids=["more samples than features", "fewer samples than features"])
def test_influence_is_the_textbook_form(num):
    random = np.random.default_rng(17)
    features, cov2, mean2 = random.normal(size=(num, 30)), _random_covariance(random, 30), random.normal(size=30)
    found = frechet_influence(features, mean2, cov2)
    basis = linalg.orth((features - features.mean(axis=0)).T)  # the transport map lives on the samples' span
    turned, centred = features @ basis, features - features.mean(axis=0)
    plan = basis @ _transport_map(covariance_of(turned), basis.T @ cov2 @ basis) @ basis.T
    expected = 2.0 * centred @ (features.mean(axis=0) - mean2) + (centred @ (np.eye(30) - plan) * centred).sum(axis=1)
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-9 * np.abs(expected).max())


def test_influence_is_the_derivative_along_the_weight_of_a_sample():
    features = np.random.default_rng(18).normal(size=(80, 6))
    mean2, cov2 = np.full(6, 0.4), np.diag(np.linspace(0.5, 2.0, 6))
    step, weights = 1e-5, np.full(80, 1.0 / 80)

    def weighted(at):
        shares = (1.0 - at) * weights
        shares[11] += at
        mean = shares @ features
        return frechet_distance(mean, ((features - mean).T * shares) @ (features - mean), mean2, cov2)

    derivative = (weighted(step) - weighted(-step)) / (2.0 * step)
    shrunk = (features - features.mean(axis=0)) * np.sqrt(79 / 80) + features.mean(axis=0)  # ddof 1 gives ddof 0's S1
    found = frechet_influence(shrunk, mean2, cov2)[11]
    assert found == pytest.approx(derivative, rel=0.05)


def test_single_precision_and_a_part_of_the_samples_leave_the_error_nearly_as_it_is(monkeypatch):
    random = np.random.default_rng(19)
    mix = random.normal(size=(600, 600)) * np.geomspace(1.0, 0.02, 600)
    features = (random.standard_t(6, size=(5000, 600)) @ mix).astype(np.float32)
    reference = np.zeros(600), covariance_of(random.normal(size=(5000, 600)) @ mix)
    single = frechet_influence(features, *reference)
    from genbench.prob import frechet as module
    from genbench.prob import tridiagonal

    monkeypatch.setattr(tridiagonal, "_SINGLE_FROM", 10**9)
    double = frechet_influence(features, *reference)
    assert single.std() == pytest.approx(double.std(), rel=1e-4)
    monkeypatch.setattr(module, "_ERROR_BUDGET", 1)
    part = frechet(features, *reference)
    assert part.error_rows == 1024
    assert part.stderr == pytest.approx(double.std() / np.sqrt(5000), rel=0.1)
    monkeypatch.setattr(tridiagonal, "_RATIONAL_FROM", 2)
    without_vectors = frechet_influence(features, *reference)
    np.testing.assert_allclose(without_vectors, double, atol=1e-3 * double.std())


def test_one_decomposition_of_the_reference_serves_many_sets():
    random = np.random.default_rng(20)
    sets = [random.normal(size=(num, 20)) * 1.2 for num in (10, 20, 21, 200)]
    mean2, cov2 = np.zeros(20), _random_covariance(random, 20)
    expected = [frechet_distance_to(part, mean2, cov2) for part in sets]
    np.testing.assert_allclose(frechet_distances_to(sets, mean2, cov2), expected, rtol=1e-9)


def test_standard_error_of_two_draws_is_that_of_both_shifts_in_one_dimension():
    random = np.random.default_rng(21)
    one, two = random.normal(size=(3000, 1)), random.normal(size=(1000, 1)) + 5.0
    expected = 10.0 * np.sqrt(1 / 3000 + 1 / 1000)
    assert two_sample_standard_error(one, two) == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_standard_error_of_two_draws_matches_the_spread_over_repetitions():
    random = np.random.default_rng(22)
    values, errors = [], []
    for _ in range(300):
        one, two = random.normal(size=(300, 6)) * 1.3 + 0.2, random.normal(size=(200, 6))
        values.append(frechet_distance_to(one, *_moments(two)))
        errors.append(two_sample_standard_error(one, two))
    assert np.mean(errors) / np.std(values, ddof=1) == pytest.approx(1.0, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "t5"])
def test_intervals_of_corrected_distances_cover_the_truth_about_95_times_in_100(law):
    random = np.random.default_rng(23)
    reference, hits = (np.zeros(8), np.eye(8)), 0
    true = 8 * 0.04 + 8 * 0.09
    for _ in range(600):
        noise = (
            random.normal(size=(800, 8)) if law == "normal" else random.standard_t(5, size=(800, 8)) / np.sqrt(5 / 3)
        )
        found = frechet(0.2 + 1.3 * noise, *reference, num2=10**9, bias="fourth_moment")
        hits += abs(found.value - found.bias - true) < 1.96 * found.stderr
    assert 0.92 <= hits / 600 <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "t5"])
def test_intervals_from_the_influence_of_1024_samples_cover_as_well(law, monkeypatch):
    """By a rational function in place of eigenvectors, as for many features."""
    from genbench.prob import frechet as module
    from genbench.prob import tridiagonal

    monkeypatch.setattr(module, "_ERROR_BUDGET", 1)
    monkeypatch.setattr(tridiagonal, "_RATIONAL_FROM", 2)
    random, true, hits = np.random.default_rng(26), 8 * 0.04 + 8 * 0.09, 0
    for _ in range(600):
        draw = random.normal if law == "normal" else lambda size: random.standard_t(5, size=size) / np.sqrt(5 / 3)
        found = frechet(0.2 + 1.3 * draw(size=(4000, 8)), np.zeros(8), np.eye(8), num2=10**9, bias="gaussian")
        assert found.error_rows == 1024
        hits += abs(found.value - found.bias - true) < 1.96 * found.stderr
    assert 0.92 <= hits / 600 <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num", "form"), [(120, "gaussian"), (300, "gaussian"), (930, "gaussian"), (300, "fourth_moment")]
)
def test_closed_form_removes_nearly_all_of_the_bias_of_gaussian_features(num, form):
    """From 4 to 31 samples for each of 30 features; at least 89 % goes."""
    left = _bias_left(lambda random, size: random.normal(size=size), num, form)
    assert abs(left) < 0.11


@pytest.mark.slow
@pytest.mark.parametrize("law", ["t5", "elliptical"])
def test_fourth_moments_remove_nearly_all_of_the_bias_of_heavy_tails_and_the_gaussian_form_does_not(law):
    def draw(random, size):
        if law == "t5":
            return random.standard_t(5, size=size) / np.sqrt(5 / 3)
        radius = np.exp(0.3 * random.normal(size=(size[0], 1)))
        return random.normal(size=size) * radius / np.exp(0.09)

    assert abs(_bias_left(draw, 400, "fourth_moment")) < 0.12
    if law == "elliptical":
        assert _bias_left(draw, 400, "gaussian") > 0.2


def _bias_left(draw, num, form, *, repetitions=250, size=30):
    """Share of the bias that the correction leaves, where both sides are drawn from laws of known moments."""
    random = np.random.default_rng(24)
    cov1, cov2 = _random_covariance(random, size), _random_covariance(random, size)
    roots = [np.linalg.cholesky(cov) for cov in (cov1, cov2)]
    true = frechet_distance(np.zeros(size), cov1, np.zeros(size), cov2)
    plain, corrected = [], []
    for _ in range(repetitions):
        one, two = (draw(random, (num, size)) @ root.T for root in roots)
        found = frechet(one, *_moments(two), num2=num, bias=form, reference=two)
        plain.append(found.value)
        corrected.append(found.value - found.bias)
    return (np.mean(corrected) - true) / (np.mean(plain) - true)


def test_bias_of_moments_equals_that_of_features_and_population_covariances_shift_it_by_their_own():
    random = np.random.default_rng(25)
    one, two = random.normal(size=(2000, 10)) * 1.3, random.normal(size=(3000, 10))
    by_features = frechet(one, *_moments(two), num2=3000, bias="gaussian")
    by_moments = frechet_between(*_moments(one), *_moments(two), num1=2000, num2=3000)
    assert by_features.bias == pytest.approx(by_moments.bias, rel=1e-10)
    assert by_moments.stderr is None
    population = frechet_between(
        one.mean(0), covariance_of(one, ddof=0), two.mean(0), covariance_of(two, ddof=0), num1=2000, num2=3000, ddof=0
    )
    apart = abs(population.value - by_moments.value)
    assert apart > 1e-6
    assert abs((population.value - population.bias) - (by_moments.value - by_moments.bias)) < 0.2 * apart
    assert frechet_between(*_moments(one), *_moments(two), num1=2000).bias is None
