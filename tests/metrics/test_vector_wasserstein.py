"""Sliced Wasserstein distance of points, against closed forms and POT."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from genbench.core.metric import Evidence, VectorEvidence
from genbench.metrics.vector_wasserstein import VectorWasserstein, vector_wasserstein


def _normal(num, size=2, *, seed=0, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(size=(num, size)) * scale + shift


def test_in_one_dimension_a_shift_is_its_own_distance():
    x = _normal(50, 1)
    assert vector_wasserstein(x, x + 3.0).value == pytest.approx(3.0, rel=1e-12)
    assert vector_wasserstein(x, x * 2.0).value == pytest.approx(np.sqrt((x**2).mean()), rel=1e-12)


def test_a_shift_in_many_dimensions_is_shortened_by_the_root_of_their_number():
    """Mean of (theta . s)^2 over the sphere is |s|^2 / D."""
    x = _normal(60, 3)
    found = vector_wasserstein(x, x + np.array([3.0, 0.0, 4.0]), num_directions=20_000)
    assert found.value == pytest.approx(5.0 / np.sqrt(3.0), rel=0.01)


def test_pot_gives_the_same_for_unequal_counts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ot = pytest.importorskip("ot")
    x, y = _normal(70), _normal(45, seed=1, shift=0.7, scale=1.4)
    ours = vector_wasserstein(x, y, num_directions=4000).value
    directions = np.random.default_rng(5).normal(size=(2, 4000))
    directions /= np.linalg.norm(directions, axis=0)
    assert ours == pytest.approx(ot.sliced_wasserstein_distance(x, y, projections=directions), rel=0.02)
    one, other = x[:, :1], y[:, :1]
    squared = ot.wasserstein_1d(one[:, 0], other[:, 0], p=2)
    assert vector_wasserstein(one, other, num_directions=3).value == pytest.approx(np.sqrt(squared), rel=1e-12)


def test_it_is_at_least_the_first_order_distance_of_scipy_in_one_dimension():
    x, y = _normal(80, 1), _normal(60, 1, seed=1, shift=0.3, scale=2.0)
    assert vector_wasserstein(x, y, num_directions=1).value >= wasserstein_distance(x[:, 0], y[:, 0])


def test_equal_sets_are_at_distance_zero_and_order_does_not_matter():
    x, y = _normal(40), _normal(40, seed=1)
    # a product of matrices may round a row in another way where it stands elsewhere
    rounding = 4 * np.finfo(np.float64).eps * np.abs(x).sum(axis=1).max()
    assert vector_wasserstein(x, x[::-1].copy()).value <= rounding
    assert vector_wasserstein(x, y).value == pytest.approx(vector_wasserstein(y, x).value, rel=1e-12)


@pytest.mark.slow
def test_the_interval_holds_the_mean_estimate_95_times_in_100():
    found = [
        vector_wasserstein(
            _normal(300, seed=2 * i), _normal(400, seed=2 * i + 1, shift=0.5, scale=1.3), num_directions=50
        )
        for i in range(300)
    ]
    middle = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found]) <= 0.98


def test_points_that_cannot_be_compared_are_refused():
    x = _normal(10)
    with pytest.raises(ValueError, match="at least 2 samples and 2 reference points, found 1 and 10"):
        vector_wasserstein(x[:1], x)
    with pytest.raises(ValueError, match=r"points \(N, D\) and \(M, D\)"):
        vector_wasserstein(x, x[:, :1])
    with pytest.raises(ValueError, match="finite points"):
        vector_wasserstein(x * np.nan, x)


def test_the_score_comes_with_counts_and_directions():
    points = VectorEvidence(
        samples=torch.from_numpy(_normal(30)), reference=torch.from_numpy(_normal(40, seed=1)).half()
    )
    (score,) = VectorWasserstein(num_directions=20).compute(Evidence(vectors=points))
    assert (score.name, score.num_samples, score.num_reference) == ("sliced_w2", 30, 40)
    assert score.protocol == {"num_directions": 20, "seed": 0, "num_samples": 30, "num_reference": 40}
    with pytest.raises(ValueError, match="reference points, found none"):
        VectorWasserstein().compute(Evidence())
    with pytest.raises(ValueError, match="num_directions is 0"):
        VectorWasserstein(num_directions=0)
