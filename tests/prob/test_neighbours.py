import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.prob import _distance_tiles, neighbours
from genbench.prob.neighbours import nearest_neighbours, nearest_others, squared_radii

#: How products are made: in float64, in float32, in bfloat16. Small dimensions are always float64.
PRECISIONS = {"double": (8, False), "single": (300, False), "bfloat16": (300, True)}


@pytest.fixture(params=list(PRECISIONS))
def size(request, monkeypatch):
    """Dimensions that lead to one precision of the products."""
    num, narrow = PRECISIONS[request.param]
    monkeypatch.setattr(_distance_tiles, "bfloat16_is_fast", lambda: narrow)
    return num


def squares(x, y):
    return (x[:, None].double() - y[None].double()).square().sum(dim=2)


def radii_by_hand(points, k):
    squared = squares(points, points)
    squared.fill_diagonal_(-1.0)  # a point comes before its neighbours
    return squared.sort(dim=1).values[:, k]


def lattice(num, size, *, seed, high=3):
    """Integer points on few lines of a lattice, so that many distances are equal."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.zeros(num, size)
    points[:, :4] = torch.randint(0, high, (num, 4), generator=generator).float()
    return points + 0.5


def normal(num, size, *, seed, scale=1.0, shift=0.0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)) * scale + shift


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(1, 3), st.integers(1, 4))
def test_radii_on_a_lattice_equal_those_by_hand_ties_included(seed, num, size, k):
    points = torch.randint(0, 4, (num, size), generator=torch.Generator().manual_seed(seed)).float() + 0.5
    torch.testing.assert_close(squared_radii(points, k), radii_by_hand(points, k), rtol=0, atol=0)


@pytest.mark.parametrize("k", [1, 3, 79])
def test_lattice_radii_are_exact_in_every_precision_of_the_products(size, k):
    points = lattice(80, size, seed=k)
    torch.testing.assert_close(squared_radii(points, k), radii_by_hand(points, k), rtol=0, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_by_hand_over_many_tiles_and_far_from_the_origin(size, k, offset, monkeypatch):
    monkeypatch.setattr(_distance_tiles, "ROWS", 37)
    monkeypatch.setattr(_distance_tiles, "COLUMNS", 48)
    x, y = normal(150, size, seed=0, shift=offset), normal(170, size, seed=1, scale=0.9, shift=offset)
    found, by_hand = nearest_neighbours(x, y, k=k), squares(x, y).sort(dim=1)
    torch.testing.assert_close(found.squared, by_hand.values[:, :k], rtol=1e-14, atol=0)
    assert torch.equal(found.index, by_hand.indices[:, :k])
    torch.testing.assert_close(squared_radii(y, k), radii_by_hand(y, k), rtol=1e-14, atol=0)


def test_many_points_at_nearly_one_distance_are_all_looked_at(size):
    """A shell around one point, its radii apart by less than single precision resolves."""
    directions = torch.nn.functional.normalize(normal(400, size, seed=3).double(), dim=1)
    shell = directions * (1.0 + 1e-9 * torch.arange(400.0, 0.0, -1.0, dtype=torch.float64)[:, None])
    shell, centre = shell.float(), torch.zeros(1, size)
    found, by_hand = nearest_neighbours(centre, shell, k=3), squares(centre, shell).sort(dim=1)
    torch.testing.assert_close(found.squared, by_hand.values[:, :3], rtol=1e-14, atol=0)


def test_searching_all_points_again_in_small_pieces_changes_nothing(size, monkeypatch):
    points = normal(200, size, seed=4, scale=1e-4)
    points[::2] += 1.0  # two clusters, so tight beside their distance that rounding blurs them
    whole = nearest_others(points, k=4)
    monkeypatch.setattr(neighbours, "_HARD_PAIRS", 500)
    assert torch.equal(nearest_others(points, k=4).squared, whole.squared)
    torch.testing.assert_close(whole.squared[:, 3], radii_by_hand(points, 4), rtol=1e-14, atol=0)


def test_neighbours_closer_than_single_precision_resolves_are_told_apart():
    base = torch.randn(1, 16, generator=torch.Generator().manual_seed(1)) * 100.0
    steps = torch.arange(8.0)[:, None] ** 2 * 2.0**-16  # exact in float32 beside 100
    points = base + steps
    torch.testing.assert_close(squared_radii(points, 2), radii_by_hand(points, 2), rtol=0, atol=0)


def test_equal_points_are_neighbours_at_distance_zero():
    points = torch.cat([torch.zeros(4, 3), torch.ones(2, 3)])
    assert squared_radii(points, 3).tolist() == [0.0, 0.0, 0.0, 0.0, 3.0, 3.0]
    assert squared_radii(points, 5).tolist() == [3.0] * 6


def test_a_set_of_one_repeated_point_has_no_radius(size):
    assert not squared_radii(torch.full((300, size), 0.3), 3).any()


def test_a_scale_weighs_the_squared_distances(size):
    x, y, scale = normal(60, size, seed=5), normal(70, size, seed=6), torch.rand(70).double() + 0.1
    found = nearest_neighbours(x, y, k=2, scale=scale)
    torch.testing.assert_close(found.squared, (squares(x, y) * scale).sort(dim=1).values[:, :2], rtol=1e-14, atol=0)


@pytest.mark.parametrize("factor", [1e-30, 1e-18, 1e18, 1e30])
def test_tiny_and_huge_features_neither_underflow_nor_overflow(size, factor):
    points = normal(100, size, seed=7).double().mul(factor).float()
    torch.testing.assert_close(squared_radii(points, 3), radii_by_hand(points, 3), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_promoted(dtype):
    points = normal(60, 300, seed=8).to(dtype)
    torch.testing.assert_close(squared_radii(points, 2), radii_by_hand(points, 2), rtol=1e-14, atol=0)


def test_bounds_hold_the_true_distances_whatever_the_precision(size):
    x, y = normal(90, size, seed=9), normal(80, size, seed=10, scale=3.0, shift=0.4)
    y[:10] = x[:10]
    tiles = _distance_tiles.distance_tiles(x, y)
    lower = tiles.lower(slice(0, 90), slice(0, 80))
    i, j = (part.flatten() for part in torch.meshgrid(torch.arange(90), torch.arange(80), indexing="ij"))
    low, high = tiles.bounds(lower.flatten(), i, j)
    true = tiles.scaled(squares(x, y)).flatten()
    assert bool((lower.flatten() <= true).all())
    assert bool((low <= true).all())
    assert bool((high >= true).all())
    assert bool((low >= lower.flatten() - 1e-6 * true.abs()).all())
