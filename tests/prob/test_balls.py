import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.prob import _distance_tiles
from genbench.prob.balls import count_balls, mutual_balls
from genbench.prob.neighbours import squared_radii

PRECISIONS = {"double": (8, False), "single": (300, False), "bfloat16": (300, True)}


@pytest.fixture(params=list(PRECISIONS))
def size(request, monkeypatch):
    num, narrow = PRECISIONS[request.param]
    monkeypatch.setattr(_distance_tiles, "bfloat16_is_fast", lambda: narrow)
    return num


def _balls_by_hand(points, centres, squared):
    distance = (points[:, None].double() - centres[None].double()).square().sum(dim=2)
    return distance <= squared, distance < squared


def _agree(found, points, centres, squared):
    within, inside = _balls_by_hand(points, centres, squared)
    assert found.within.tolist() == within.sum(dim=1).tolist()
    assert found.inside.tolist() == inside.sum(dim=1).tolist()
    assert found.occupants.tolist() == inside.sum(dim=0).tolist()
    assert found.sole_holder.tolist() == within[within.sum(dim=1) == 1].sum(dim=0).tolist()
    assert found.sole_holder_inside.tolist() == inside[inside.sum(dim=1) == 1].sum(dim=0).tolist()
    assert found.sole_occupant.tolist() == inside[:, inside.sum(dim=0) == 1].sum(dim=1).tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(5, 40), st.integers(1, 3), st.integers(1, 4))
def test_counts_on_a_lattice_equal_those_by_hand_ties_included(seed, num, num_centres, size, k):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(0, 4, (num, size), generator=generator).float() + 0.5
    centres = torch.randint(0, 4, (num_centres, size), generator=generator).float() + 0.5
    squared = squared_radii(centres, k)
    _agree(count_balls(points, centres, squared), points, centres, squared)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("whole", [True, False], ids=["lattice", "normal"])
def test_counts_are_exact_in_every_precision_and_over_many_tiles(size, offset, whole, monkeypatch):
    monkeypatch.setattr(_distance_tiles, "ROWS", 37)
    monkeypatch.setattr(_distance_tiles, "COLUMNS", 64)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.zeros(120, size), torch.zeros(90, size)
    for part in (x, y):
        part[:, :5] = torch.randint(0, 3, (len(part), 5), generator=generator).float()
        if not whole:
            part += torch.randn(part.shape, generator=generator)
    x, y = x + offset, y + offset
    x_squared, y_squared = squared_radii(x, 3), squared_radii(y, 3)
    forth, back = mutual_balls(x, y, k=3)
    _agree(forth, x, y, y_squared)
    _agree(back, y, x, x_squared)


def test_a_point_in_the_middle_of_all_balls_is_counted_in_each(size):
    centres = torch.randn(300, size, generator=torch.Generator().manual_seed(2))
    squared = squared_radii(centres, 299)
    found = count_balls(torch.zeros(4, size), centres, squared)
    assert found.within.tolist() == [300] * 4


@pytest.mark.parametrize("factors", [(1e25, 1.0), (1.0, 1e25), (1e-25, 1.0), (1e-25, 1e-25), (1e25, 1e25)])
def test_sets_of_any_size_and_of_unlike_sizes_are_counted(size, factors):
    generator = torch.Generator().manual_seed(3)
    x, y = ((torch.randn(60, size, generator=generator).double() * factor).float() for factor in factors)
    forth, back = mutual_balls(x, y, k=3)
    _agree(forth, x, y, squared_radii(y, 3))
    _agree(back, y, x, squared_radii(x, 3))


def test_sets_of_unlike_types_are_compared_in_the_wider(size):
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(60, size, generator=generator), torch.randn(70, size, generator=generator).double()
    forth, _ = mutual_balls(x, y, k=3)
    _agree(forth, x, y, squared_radii(y, 3))
