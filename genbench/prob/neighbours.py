"""Nearest-neighbour balls between two sets of points: radii, and who lies in whose ball.

Distances come from one matrix product per block of rows, in the precision of the features. Pairs
too close to a ball's edge for that precision are measured again in float64 from the difference of
the two points, so that every comparison is exact for features that are exact, ties included.
Memory grows with `ROWS` times the number of points, never with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024
"""Rows of a distance matrix held at once."""
_EXACT_ELEMENTS = 1 << 22  # differences held at once while pairs are measured again: 32 MiB
_SPARE = 4  # candidates beyond the k nearest, enough unless many points are nearly equally far
_SLACK = 8.0  # times eps sqrt(F) (|x|^2 + |y|^2): beyond any rounding error seen in a product of F terms


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
    sole_occupant: Tensor
    """(N,) int64: balls that have this point inside, edge excluded, and no other."""


def squared_radii(points: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other point: (N,) float64.

    Args:
        points: (N, F), N > k; a point equal to another counts as a neighbour at distance 0.
        k: at least 1.
    """
    distinct, index, counts = torch.unique(points, dim=0, return_inverse=True, return_counts=True)
    radii = torch.empty(len(distinct), dtype=torch.float64, device=points.device)
    for rows, approximate, slack in _distance_rows(distinct, distinct):
        radii[rows] = _kth_of(distinct, rows, _candidates(approximate, slack, k), counts, k)
    return radii[index]


def _candidates(approximate: Tensor, slack: Tensor, k: int) -> Tensor:
    """Indices (rows, width) of all points that may be among the k nearest or the point itself."""
    num = approximate.shape[1]
    first = approximate.topk(min(k + 1 + _SPARE, num), dim=1, largest=False, sorted=True)
    edge = first.values[:, min(k, num - 1), None] + 2.0 * slack.amax(dim=1, keepdim=True)
    if first.values.shape[1] == num or bool((first.values[:, -1:] > edge).all()):
        return first.indices
    width = int((approximate <= edge).sum(dim=1).max())
    return approximate.topk(width, dim=1, largest=False).indices


def count_balls(points: Tensor, centres: Tensor, squared: Tensor) -> BallCounts:
    """Count, for each point, the balls around `centres` that hold it.

    Args:
        points: (N, F).
        centres: (M, F).
        squared: (M,) float64, squared radii of the balls.
    """
    within, inside = [], []
    sole_holder = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    occupants, occupant = torch.zeros_like(sole_holder), torch.zeros_like(sole_holder)
    for rows, approximate, slack in _distance_rows(points, centres):
        closed, opened = _compared(points[rows], centres, squared, approximate, slack)
        within.append(closed.sum(dim=1))
        inside.append(opened.sum(dim=1))
        sole_holder += closed[within[-1] == 1].sum(dim=0)
        here = opened.sum(dim=0)
        once = here == 1  # a ball with one occupant in all has it in one block
        occupant[once] = rows.start + opened[:, once].int().argmax(dim=0)
        occupants += here
    sole_occupant = torch.bincount(occupant[occupants == 1], minlength=len(points))
    return BallCounts(torch.cat(within), torch.cat(inside), occupants, sole_holder, sole_occupant)


def _compared(x: Tensor, y: Tensor, squared: Tensor, approximate: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each pair is within (edge included) and inside (edge excluded): two (rows, M) bool."""
    margin = squared.to(approximate.dtype) - approximate
    closed, opened = margin >= 0, margin > 0
    i, j = (margin.abs() <= slack).nonzero(as_tuple=True)
    exact = _exact(x, y, i, j)
    closed[i, j], opened[i, j] = exact <= squared[j], exact < squared[j]
    return closed, opened


def _distance_rows(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, their squared distances (rows, M) up to rounding, and a bound of that rounding."""
    centre = y.mean(dim=0)
    x, y = x - centre, y - centre  # rounding grows with the norms, distances do not
    x_squared, y_squared = x.square().sum(dim=1, keepdim=True), y.square().sum(dim=1)
    relative = _SLACK * torch.finfo(x.dtype).eps * x.shape[1] ** 0.5
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        scale = x_squared[rows] + y_squared
        yield rows, torch.addmm(scale, x[rows], y.T, alpha=-2.0), scale * relative


def _kth_of(points: Tensor, rows: slice, near: Tensor, counts: Tensor, k: int) -> Tensor:
    """Exact squared distance to the k-th neighbour among the candidates `near`, repeats counted."""
    own = torch.arange(rows.start, rows.stop, device=points.device)
    i = torch.arange(len(own), device=points.device).repeat_interleave(near.shape[1])
    exact = _exact(points[rows], points, i, near.flatten()).view(near.shape)
    order = exact.sort(dim=1)
    ranked = near.gather(1, order.indices)
    weight = counts[ranked] - (ranked == own[:, None]).long()  # a point is no neighbour of itself
    place = (weight.cumsum(dim=1) < k).sum(dim=1, keepdim=True)
    return order.values.gather(1, place)[:, 0]


def _exact(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances of the pairs (x_i, y_j), float64."""
    rows = max(1, _EXACT_ELEMENTS // x.shape[1])
    parts = [
        (x[a].double() - y[b].double()).square().sum(dim=1) for a, b in zip(i.split(rows), j.split(rows), strict=True)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64, device=x.device)
