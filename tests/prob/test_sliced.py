import warnings

import numpy as np
import pytest
import torch

from genbench.prob import sliced
from genbench.prob.sliced import (
    gaussian_sliced_wasserstein,
    random_directions,
    sliced_distance,
    sliced_distance_along,
    sliced_wasserstein_squared,
)


@pytest.mark.parametrize(("n", "m"), [(8, 8), (17, 12), (6, 18), (1, 5)])
def test_one_dimension_of_any_sizes_equals_the_integral_of_quantile_functions(n, m):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(n, 1)), random.normal(size=(m, 1)) + 0.3
    steps = (np.arange(n * m) + 0.5) / (n * m)
    by_hand = np.square(np.sort(x[:, 0])[(steps * n).astype(int)] - np.sort(y[:, 0])[(steps * m).astype(int)]).mean()
    np.testing.assert_allclose(sliced_wasserstein_squared(x, y, num_directions=3, seed=0), by_hand, rtol=1e-12)


def test_projections_equal_those_of_pot():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ot = pytest.importorskip("ot")
    random = np.random.default_rng(1)
    x, y = random.normal(size=(40, 5)), random.normal(size=(55, 5)) + 0.2
    directions = random_directions(30, 5, generator=torch.Generator().manual_seed(7))
    expected = ot.sliced_wasserstein_distance(x, y, projections=directions.numpy().T) ** 2
    found = sliced_wasserstein_squared(x, y, num_directions=30, seed=7)
    assert found.shape == (30,)
    assert found.dtype == np.float64
    assert found.mean() == pytest.approx(expected, rel=1e-10)


def test_a_shift_costs_its_square_over_the_dimension():
    x = np.random.default_rng(2).normal(size=(300, 6))
    shift = np.array([1.0, -2.0, 0.5, 0.0, 0.0, 1.0])
    values = sliced_wasserstein_squared(x, x + shift, num_directions=4000, seed=0)
    assert values.mean() == pytest.approx(shift @ shift / 6, rel=0.05)


def test_a_set_is_at_no_distance_from_itself_and_from_its_repetition():
    x = np.random.default_rng(3).normal(size=(50, 4))
    # a product of matrices may round a row in another way where it stands elsewhere, so gaps are no larger than that
    rounding = (4 * np.finfo(np.float64).eps * np.abs(x).sum(axis=1).max()) ** 2
    for other in (x[::-1].copy(), np.tile(x, (3, 1))):
        assert sliced_wasserstein_squared(x, other, num_directions=9, seed=0).max() <= rounding


def test_blocks_of_directions_change_nothing(monkeypatch):
    random = np.random.default_rng(4)
    x, y = random.normal(size=(30, 4)), random.normal(size=(20, 4))
    whole = sliced_distance(x, y, num_directions=50, seed=0)
    monkeypatch.setattr(sliced, "DIRECTIONS", 7)
    cut = sliced_distance(x, y, num_directions=50, seed=0)
    np.testing.assert_allclose(cut.squared, whole.squared, rtol=1e-12)
    np.testing.assert_allclose(cut.influence_x, whole.influence_x, atol=1e-12)


def test_influence_is_the_derivative_by_the_weight_of_a_point():
    """Repeating one of the points changes the value by its influence over the count, to first order."""
    random = np.random.default_rng(5)
    x, y = random.normal(size=(400, 3)), random.normal(size=(500, 3)) + 1.0
    directions = random_directions(200, 3, generator=torch.Generator().manual_seed(0))
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    base = sliced_distance_along(first, second, directions)
    for point in (0, 7, 33):
        more = sliced_distance_along(torch.cat([first, first[point : point + 1]]), second, directions)
        assert (more.value - base.value) * 401 == pytest.approx(base.influence_x[point], rel=0.05, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "sizes"), [(0.4, (200, 300)), (1.0, (200, 150))])
def test_intervals_cover_the_expected_value(shift, sizes):
    """Centred on the mean over repetitions: the small-sample bias is declared, not covered."""
    random = np.random.default_rng(6)
    runs = [
        sliced_distance(
            random.normal(size=(sizes[0], 4)) + shift, random.normal(size=(sizes[1], 4)), num_directions=60, seed=i
        )
        for i in range(400)
    ]
    values, errors = np.array([run.value for run in runs]), np.sqrt([run.variance for run in runs])
    assert 0.92 <= np.mean(np.abs(values - values.mean()) <= 1.96 * errors) <= 0.98


def test_gaussian_approximation_equals_its_formula_and_meets_the_definition_in_many_dimensions():
    random = np.random.default_rng(7)
    x, y = random.normal(size=(2000, 400)) * 1.3 + 0.1, random.normal(size=(1500, 400))
    found = gaussian_sliced_wasserstein(x, y)
    spread = [np.linalg.norm(part - part.mean(0), axis=1) for part in (x, y)]
    roots = [np.sqrt(np.mean(part**2) / 400) for part in spread]
    by_hand = np.sqrt(np.linalg.norm(x.mean(0) - y.mean(0)) ** 2 / 400 + (roots[0] - roots[1]) ** 2)
    assert found.value == pytest.approx(by_hand, rel=1e-12)
    exact = np.sqrt(sliced_wasserstein_squared(x, y, num_directions=100, seed=0).mean())
    assert found.value == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
def test_error_of_the_gaussian_approximation_matches_the_spread_over_repetitions():
    random = np.random.default_rng(8)
    runs = [
        gaussian_sliced_wasserstein(random.normal(size=(150, 10)) * 1.4 + 0.3, random.normal(size=(200, 10)))
        for _ in range(500)
    ]
    spread = np.std([run.value for run in runs], ddof=1)
    assert np.mean([run.stderr for run in runs]) / spread == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("sets", [((3, 2), (3, 4)), ((3,), (3,)), ((0, 2), (3, 2))])
def test_sets_that_do_not_fit_are_refused(sets):
    with pytest.raises(ValueError, match="found"):
        sliced_wasserstein_squared(np.zeros(sets[0]), np.zeros(sets[1]), num_directions=2, seed=0)
