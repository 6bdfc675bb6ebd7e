"""Nearest neighbours: who they are and how far they lie.

Distances come from one matrix product per tile (`_distance_tiles`), in the precision of the
features. Pairs too close to call for that precision are measured again in float64 from the
difference of the two points, so that every distance and comparison is exact for features that are
exact, ties included. Memory grows with the number of points, never with its square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genbench.prob._distance_tiles import DistanceTiles, distance_tiles

_SPARE = 6  # candidates beyond the k nearest, enough unless many points are nearly equally far
_GROUP = 16  # columns reduced to their minimum before anything is sorted
_HARD_PAIRS = 1 << 22  # pairs looked at together where they were not enough


@dataclass(frozen=True)
class Neighbours:
    """The k nearest points of each point, nearest first."""

    squared: Tensor
    """(N, k) float64, squared distances."""
    index: Tensor
    """(N, k) int64; among equally near points, any."""

    @property
    def distances(self) -> Tensor:
        """(N, k) float64."""
        return self.squared.sqrt()


def nearest_neighbours(x: Tensor, y: Tensor, *, k: int = 1, scale: Tensor | None = None) -> Neighbours:
    """The k nearest points of `y` to each of `x`.

    Args:
        x: (N, F).
        y: (M, F), M >= k.
        k: at least 1.
        scale: (M,) float64, not negative: squared distances to y_j are multiplied by its entry.
    """
    tiles = distance_tiles(x, y)
    weights = None if scale is None else scale.to(tiles.x.norms.dtype)
    low, index = _nothing(tiles, min(k + _SPARE, len(y)))
    for rows, columns in tiles.slices():
        lower = tiles.lower(rows, columns).clamp_(min=0.0)
        if weights is not None:
            lower *= weights[columns]
        _keep(low, index, rows, columns.start, lower)
    return _settled(tiles, low, index, k, scale=scale, within=False)


def nearest_others(points: Tensor, *, k: int = 1) -> Neighbours:
    """The k nearest other points to each of `points` (N, F), N > k; an equal point is one at distance 0."""
    return _others(distance_tiles(points, points), k)


def squared_radii(points: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other point: (N,) float64.

    Args:
        points: (N, F), N > k; a point equal to another counts as a neighbour at distance 0.
        k: at least 1.
    """
    return nearest_others(points, k=k).squared[:, -1]


def radii_within(tiles: DistanceTiles, k: int) -> Tensor:
    """`squared_radii` of a set that has been made ready to be compared with itself."""
    return _others(tiles, k).squared[:, -1]


def _others(tiles: DistanceTiles, k: int) -> Neighbours:
    """The k nearest others of a set that is compared with itself."""
    num = len(tiles.x.points)
    low, index = _nothing(tiles, min(k + _SPARE, num - 1))
    for rows, columns in tiles.slices_of_half():
        lower = tiles.lower(rows, columns).clamp_(min=0.0)
        if rows == columns:
            lower.fill_diagonal_(math.inf)
        else:
            _keep(low, index, columns, rows.start, lower.T)
        _keep(low, index, rows, columns.start, lower)
    return _settled(tiles, low, index, k, scale=None, within=True)


def _nothing(tiles: DistanceTiles, width: int) -> tuple[Tensor, Tensor]:
    """Candidates before any tile is seen: lower bounds (N, width) and indices."""
    norms = tiles.x.norms
    low = torch.full((len(norms), width), math.inf, dtype=norms.dtype, device=norms.device)
    return low, torch.zeros(low.shape, dtype=torch.int64, device=norms.device)


def _keep(low: Tensor, index: Tensor, rows: slice, start: int, lower: Tensor) -> None:
    """Merge a tile, whose first column is `start`, into the smallest bounds kept for its rows."""
    width = low.shape[1]
    found, place = _smallest(lower, width)
    values = torch.cat([low[rows], found], dim=1)
    names = torch.cat([index[rows], place + start], dim=1)
    best = values.topk(width, dim=1, largest=False, sorted=True)
    low[rows], index[rows] = best.values, names.gather(1, best.indices)


def _smallest(values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The `width` smallest of each row and their places, in any order; fewer if a row is shorter.

    They lie in the `width` groups with the smallest minima, so most of a row is only ever reduced.
    """
    size = values.shape[1]
    num = size // _GROUP
    if num <= width:
        found = values.topk(min(width, size), dim=1, largest=False)
        return found.values, found.indices
    group = _minima(values, num).topk(width, dim=1, largest=False, sorted=False).indices
    member = num * torch.arange(_GROUP, device=values.device)
    place = (group[:, None, :] + member[:, None]).flatten(1)
    rest = torch.arange(num * _GROUP, size, device=values.device).expand(len(values), -1)  # no whole group
    place = torch.cat([place, rest], dim=1)
    found = values.gather(1, place).topk(width, dim=1, largest=False)
    return found.values, place.gather(1, found.indices)


def _minima(values: Tensor, num: int) -> Tensor:
    """Least of each group of a row; reduced along rows or columns, whichever lie one after another in memory."""
    turned = values.stride(1) != 1
    kept = (values.T if turned else values).narrow(0 if turned else 1, 0, num * _GROUP)
    minima: Tensor = kept.unflatten(0 if turned else 1, (_GROUP, num)).amin(dim=0 if turned else 1)
    return minima.T if turned else minima


def _settled(
    tiles: DistanceTiles, low: Tensor, index: Tensor, k: int, *, scale: Tensor | None, within: bool
) -> Neighbours:
    """Exact distances of the k nearest among the candidates, or among all where those are too few."""

    def measured(i: Tensor, j: Tensor) -> Tensor:
        squared = tiles.exact(i, j)
        return squared if scale is None else squared * scale[j]

    squared = torch.full(low.shape, math.inf, dtype=torch.float64, device=low.device)
    own = torch.arange(len(low), device=low.device).repeat_interleave(k)
    squared[:, :k] = measured(own, index[:, :k].flatten()).view(-1, k)
    bound = tiles.not_below(squared[:, :k].amax(dim=1, keepdim=True))
    i, place = (low[:, k:] < bound).nonzero(as_tuple=True)
    squared[i, place + k] = measured(i, index[i, place + k])
    best = squared.topk(k, dim=1, largest=False, sorted=True)
    found = Neighbours(best.values, index.gather(1, best.indices))
    everyone = low.shape[1] == len(tiles.y.points) - int(within)
    if not everyone:
        hard = (low[:, -1].double() < tiles.scaled(found.squared[:, -1])).nonzero()[:, 0]
        for rows in hard.split(max(1, _HARD_PAIRS // len(tiles.y.points))) if len(hard) else ():
            found.squared[rows], found.index[rows] = _searched(tiles, rows, found.squared[rows, -1], k, scale, within)
    return found


def _searched(
    tiles: DistanceTiles, rows: Tensor, bound: Tensor, k: int, scale: Tensor | None, within: bool
) -> tuple[Tensor, Tensor]:
    """Squares and indices of the k nearest of `rows`, among all points whose square may be at most `bound`."""
    few, edge, pairs = tiles.of_rows(rows), tiles.not_below(bound)[:, None], []
    for block, columns in few.slices():
        lower = few.lower(block, columns).clamp_(min=0.0)
        if scale is not None:
            lower *= scale[columns].to(lower.dtype)
        here = (lower <= edge[block]).nonzero()
        pairs.append(here + torch.tensor([block.start, columns.start], device=rows.device))
    i, j = torch.cat(pairs).unbind(dim=1)
    if within:
        others = rows[i] != j
        i, j = i[others], j[others]
    squared = few.exact(i, j) if scale is None else few.exact(i, j) * scale[j]
    order = squared.argsort(stable=True)
    order = order[i[order].argsort(stable=True)]  # by row, nearest first
    counts = torch.bincount(i, minlength=len(rows))
    starts = counts.cumsum(0) - counts
    chosen = order[starts[:, None] + torch.arange(k, device=rows.device)]
    return squared[chosen], j[chosen]
