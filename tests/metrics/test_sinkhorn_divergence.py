"""Sinkhorn divergence, against closed forms between points, shifted sets and Gaussians."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm

from genbench.core.metric import Evidence, VectorEvidence
from genbench.metrics.sinkhorn_divergence import SinkhornDivergence, sinkhorn_divergence


def _normal(num, size=2, *, seed=0, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(size=(num, size)) * scale + shift


def _between_gaussians(shift, variances, epsilon):
    """Janati et al. 2020, arXiv:2006.02572, Theorem 1, in one dimension."""
    half = epsilon / 2.0

    def cost(a, b):
        root = np.sqrt(4.0 * a * b + half**2)
        return a + b - root + half * (1.0 - np.log(2.0 * half)) + half * np.log(root + half)

    first, second = variances
    return shift**2 + cost(first, second) - 0.5 * cost(first, first) - 0.5 * cost(second, second)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_between_two_points_it_is_the_squared_distance(epsilon):
    found = sinkhorn_divergence(np.zeros((3, 2)), np.full((4, 2), 2.0), epsilon=epsilon)
    assert found.value == pytest.approx(8.0, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 50.0])
def test_a_shift_costs_its_square_at_any_epsilon(epsilon):
    """The cost to a shifted set differs from that to the set itself by terms that the marginals fix."""
    x = _normal(60)
    assert sinkhorn_divergence(x, x + np.array([1.0, 2.0]), epsilon=epsilon).value == pytest.approx(5.0, rel=1e-4)


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_quantiles_of_gaussians_cost_the_closed_form(epsilon):
    x = norm.ppf((np.arange(300) + 0.5) / 300)[:, None]
    found = sinkhorn_divergence(x, 1.0 + 2.0 * x, epsilon=epsilon)
    assert found.value == pytest.approx(_between_gaussians(1.0, (1.0, 4.0), epsilon), abs=0.006)


def test_two_points_a_side_cost_what_a_line_search_finds():
    """All couplings of two even pairs have one free number."""
    x, y, epsilon = np.array([[0.0], [1.0]]), np.array([[0.2], [1.9]]), 0.7

    def cost(first, second):
        shares = np.linspace(1e-9, 0.5 - 1e-9, 400_001)
        squares = (first - second.T) ** 2
        plans = [shares, 0.5 - shares, 0.5 - shares, shares]
        terms = [p * c + epsilon * p * np.log(4.0 * p) for p, c in zip(plans, squares.ravel(), strict=True)]
        return sum(terms).min()

    expected = cost(x, y) - 0.5 * cost(x, x) - 0.5 * cost(y, y)
    assert sinkhorn_divergence(x, y, epsilon=epsilon).value == pytest.approx(expected, abs=1e-6)


def test_equal_sets_are_at_zero_and_sides_may_be_swapped():
    x, y = _normal(40), _normal(50, seed=1, shift=0.4)
    assert sinkhorn_divergence(x, x[::-1].copy(), epsilon=0.5).value == pytest.approx(0.0, abs=1e-5)
    there, back = sinkhorn_divergence(x, y, epsilon=0.5), sinkhorn_divergence(y, x, epsilon=0.5)
    assert there.value == pytest.approx(back.value, rel=1e-5)
    assert there.stderr == pytest.approx(back.stderr, rel=1e-4)


def test_an_outlier_and_costs_far_above_epsilon_are_solved_in_logarithms():
    x, y = _normal(40), _normal(40, seed=1)
    x[0] = 20.0
    found = sinkhorn_divergence(x, y, epsilon=1.0)
    assert found.value == pytest.approx(800.0 / 40, rel=0.2)


def test_too_small_an_epsilon_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="a larger one converges sooner"):
        sinkhorn_divergence(_normal(60), _normal(70, seed=1), epsilon=1e-5)


def test_as_epsilon_falls_it_becomes_the_squared_wasserstein_distance_of_a_linear_program():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ot = pytest.importorskip("ot")
    x, y = _normal(30), _normal(30, seed=1)
    exact = ot.emd2([], [], ot.dist(x, y))
    assert sinkhorn_divergence(x, y, epsilon=1e-3).value == pytest.approx(exact, rel=1e-4)


@pytest.mark.slow
def test_the_interval_holds_the_mean_estimate_95_times_in_100():
    found = [
        sinkhorn_divergence(_normal(150, seed=2 * i), _normal(200, seed=2 * i + 1, shift=0.7, scale=1.3), epsilon=0.5)
        for i in range(400)
    ]
    middle = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found]) <= 0.98


def _score(samples, reference, **settings):
    points = VectorEvidence(samples=torch.from_numpy(samples), reference=torch.from_numpy(reference))
    (score,) = SinkhornDivergence(**settings).compute(Evidence(vectors=points))
    return score


def test_the_score_states_epsilon_and_how_many_points_were_used():
    samples, reference = _normal(90), _normal(80, seed=1)
    score = _score(samples, reference, max_points=50)
    assert (score.name, score.num_samples, score.num_reference) == ("sinkhorn", 50, 50)
    distances = ((reference[:, None] - reference) ** 2).sum(2).sum() / (80 * 79)
    assert score.protocol["epsilon"] == pytest.approx(0.05 * distances, rel=1e-5)
    assert score.protocol["epsilon_share"] == 0.05


def test_the_units_of_the_data_square_through():
    samples, reference = _normal(50), _normal(60, seed=1, shift=0.5)
    scaled = _score(samples * 4.0, reference * 4.0)
    assert scaled.value == pytest.approx(16.0 * _score(samples, reference).value, rel=1e-6)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="reference points that differ"):
        _score(_normal(10), np.ones((10, 2)))
    with pytest.raises(ValueError, match="epsilon is 0"):
        sinkhorn_divergence(_normal(10), _normal(10), epsilon=0.0)
    with pytest.raises(ValueError, match="reference points, found none"):
        SinkhornDivergence().compute(Evidence())
    with pytest.raises(ValueError, match="expected above 0"):
        SinkhornDivergence(epsilon_share=0.0)
