import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.prob import neighbours
from genbench.prob.neighbours import count_balls, squared_radii


def _radii_by_hand(points, k):
    squared = (points[:, None].double() - points[None].double()).square().sum(dim=2)
    squared.fill_diagonal_(-1.0)  # a point comes before its neighbours
    return squared.sort(dim=1).values[:, k]


def _balls_by_hand(points, centres, squared):
    distance = (points[:, None].double() - centres[None].double()).square().sum(dim=2)
    return distance <= squared, distance < squared


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(5, 40), st.integers(1, 3), st.integers(1, 4))
def test_counts_on_a_lattice_equal_those_by_hand_ties_included(seed, num, num_centres, size, k):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(0, 4, (num, size), generator=generator).float() + 0.5
    centres = torch.randint(0, 4, (num_centres, size), generator=generator).float() + 0.5
    squared = squared_radii(centres, k)
    torch.testing.assert_close(squared, _radii_by_hand(centres, k), rtol=0, atol=0)
    within, inside = _balls_by_hand(points, centres, squared)
    found = count_balls(points, centres, squared)
    assert found.within.tolist() == within.sum(dim=1).tolist()
    assert found.inside.tolist() == inside.sum(dim=1).tolist()
    assert found.occupants.tolist() == inside.sum(dim=0).tolist()
    assert found.sole_holder.tolist() == within[within.sum(dim=1) == 1].sum(dim=0).tolist()
    assert found.sole_occupant.tolist() == inside[:, inside.sum(dim=0) == 1].sum(dim=1).tolist()


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_radii_and_counts_are_exact_far_from_the_origin_and_over_many_blocks(offset, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 37)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(200, 24, generator=generator) + offset
    points = torch.randn(300, 24, generator=generator) * 0.9 + offset
    squared = squared_radii(centres, 3)
    torch.testing.assert_close(squared, _radii_by_hand(centres, 3), rtol=1e-14, atol=0)
    within, inside = _balls_by_hand(points, centres, squared)
    found = count_balls(points, centres, squared)
    assert found.within.tolist() == within.sum(dim=1).tolist()
    assert found.occupants.tolist() == inside.sum(dim=0).tolist()
    assert found.sole_occupant.tolist() == inside[:, inside.sum(dim=0) == 1].sum(dim=1).tolist()


def test_neighbours_closer_than_single_precision_resolves_are_told_apart():
    base = torch.randn(1, 16, generator=torch.Generator().manual_seed(1)) * 100.0
    steps = torch.arange(8.0)[:, None] ** 2 * 2.0**-16  # exact in float32 beside 100
    points = base + steps
    torch.testing.assert_close(squared_radii(points, 2), _radii_by_hand(points, 2), rtol=0, atol=0)


def test_equal_points_are_neighbours_at_distance_zero():
    points = torch.cat([torch.zeros(4, 3), torch.ones(2, 3)])
    assert squared_radii(points, 3).tolist() == [0.0, 0.0, 0.0, 0.0, 3.0, 3.0]
    assert squared_radii(points, 5).tolist() == [3.0] * 6
