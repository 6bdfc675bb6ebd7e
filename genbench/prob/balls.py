"""Balls around points: who lies in whose, counted exactly, edges and ties included.

Legend: a ball reaches from its centre to a given radius; `within` counts its edge, `inside` does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.prob._distance_tiles import DistanceTiles, distance_tiles
from genbench.prob.neighbours import radii_within, squared_radii


@dataclass(frozen=True)
class BallCounts:
    """Which balls of one set hold which points of another, counted from both sides."""

    within: Tensor
    """(N,) int64: balls that hold the point, edge included (distance <= radius)."""
    inside: Tensor
    """(N,) int64: balls that hold the point, edge excluded (distance < radius)."""
    occupants: Tensor
    """(M,) int64: points inside the ball, edge excluded."""
    sole_holder: Tensor
    """(M,) int64: points that this ball holds, edge included, and no other does."""
    sole_holder_inside: Tensor
    """(M,) int64: points inside this ball, edge excluded, and inside no other."""
    sole_occupant: Tensor
    """(N,) int64: balls that have this point inside, edge excluded, and no other."""


def count_balls(points: Tensor, centres: Tensor, squared: Tensor) -> BallCounts:
    """Count, for each point, the balls around `centres` that hold it.

    Args:
        points: (N, F).
        centres: (M, F).
        squared: (M,) float64, squared radii of the balls.
    """
    tiles = distance_tiles(points, centres)
    tally = _Tally(tiles, squared, swapped=False)
    for rows, columns in tiles.slices():
        tally.add(rows.start, columns.start, tiles.lower(rows, columns))
    return tally.counts()


def mutual_balls(x: Tensor, y: Tensor, *, k: int) -> tuple[BallCounts, BallCounts]:
    """Counts of `x` in the balls around `y`, and of `y` in the balls around `x`, from one pass.

    Args:
        x: (N, F), N > k.
        y: (M, F), M > k.
        k: a ball reaches to the k-th nearest other point of its centre's own set; at least 1.
    """
    common = torch.promote_types(x.dtype, y.dtype)
    x, y = x.to(common), y.to(common)
    own = distance_tiles(y, y)
    y_squared, x_squared = radii_within(own, k), squared_radii(x, k)
    tiles = own.facing(x)
    forth, back = _Tally(tiles, y_squared, swapped=False), _Tally(tiles, x_squared, swapped=True)
    for rows, columns in tiles.slices():
        lower = tiles.lower(rows, columns)
        forth.add(rows.start, columns.start, lower)
        back.add(rows.start, columns.start, lower)
    return forth.counts(), back.counts()


class _Tally:
    """Counts that grow tile by tile; `swapped`: the points are `y` and the balls lie around `x`."""

    def __init__(self, tiles: DistanceTiles, squared: Tensor, *, swapped: bool) -> None:
        self.tiles, self.squared, self.swapped = tiles, squared, swapped
        self.above, self.below = tiles.not_below(squared), tiles.not_above(squared)
        num_x, num_y = len(tiles.x.points), len(tiles.y.points)
        points, balls = (num_y, num_x) if swapped else (num_x, num_y)
        self.within, self.inside, self.holders, self.insiders = self._zeros(4, points)
        self.occupants, self.visitors = self._zeros(2, balls)

    def _zeros(self, rows: int, num: int) -> Tensor:
        return torch.zeros((rows, num), dtype=torch.int64, device=self.squared.device)

    def add(self, row: int, column: int, lower: Tensor) -> None:
        """Count the pairs of a tile whose first entry is the pair (row, column)."""
        num_rows, num_columns = lower.shape
        edge = self.above[row : row + num_rows, None] if self.swapped else self.above[column : column + num_columns]
        i, j = (lower <= edge).nonzero(as_tuple=True)
        entries = lower[i, j]
        i, j = i + row, j + column
        point, ball = (j, i) if self.swapped else (i, j)
        low, high = self.tiles.bounds(entries, i, j)
        closed = high < self.below[ball]
        opened = closed.clone()
        doubt = (~closed & (low <= self.above[ball])).nonzero()[:, 0]
        if self.tiles.rough:
            low, high = self.tiles.single(i[doubt], j[doubt])
            squared = self.squared[ball[doubt]]
            closed[doubt] = opened[doubt] = high < squared
            doubt = doubt[(low <= squared) & (high >= squared)]
        exact, squared = self.tiles.exact(i[doubt], j[doubt]), self.squared[ball[doubt]]
        closed[doubt], opened[doubt] = exact <= squared, exact < squared
        self._count(point[closed], ball[closed], self.within, self.holders)
        self._count(point[opened], ball[opened], self.inside, self.insiders)
        self._count(ball[opened], point[opened], self.occupants, self.visitors)

    @staticmethod
    def _count(one: Tensor, other: Tensor, number: Tensor, names: Tensor) -> None:
        """Add to the number of partners, and to the sum of their names: of a sole partner, its name."""
        number.index_add_(0, one, torch.ones_like(one))
        names.index_add_(0, one, other)

    def counts(self) -> BallCounts:
        """What has been counted."""
        num_points, num_balls = len(self.within), len(self.occupants)
        return BallCounts(
            within=self.within,
            inside=self.inside,
            occupants=self.occupants,
            sole_holder=torch.bincount(self.holders[self.within == 1], minlength=num_balls),
            sole_holder_inside=torch.bincount(self.insiders[self.inside == 1], minlength=num_balls),
            sole_occupant=torch.bincount(self.visitors[self.occupants == 1], minlength=num_points),
        )
