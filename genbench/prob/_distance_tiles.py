"""Squared distances between two sets, tile by tile, each with a bound of its rounding error.

One matrix product gives a tile: in double precision for points that are double or of few
dimensions, else in single precision, or in bfloat16 on a CPU that multiplies it much faster. Every
entry is a *lower* bound of the true squared distance, at most `2 slack` below it. What such bounds
cannot decide, `exact` measures in float64 from the difference of the two points, so the answer never
depends on the precision of the products. Points are centred and scaled by a power of two; a set is
copied for that only while the copy is small.

With a and b for the lengths of what is lost when x and y are rounded to bfloat16, and a product g
that is rounded to bfloat16 as well (u = 2^-9), the inequalities of Cauchy and of the means give

    | |x - y|^2 - (|x|^2 + |y|^2 - 2 g) | <= 2 a |y| + 2 b |x| + 2 a b + 2 u (|x| + a) (|y| + b) <= s(x) + s(y),
    s(x) = rho |x|^2 + a^2 / rho + a^2 + u (|x| + a)^2      for any rho > 0.

Rounding in single precision adds its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 1024
"""Rows of a tile."""
COLUMNS = 2048
"""Columns of a tile: 8 MiB of distances in single precision."""
_SLACK = 8.0  # times eps sqrt(F) (|x|^2 + |y|^2): beyond any rounding error seen in a product of F terms
_FEW_DIMS = 32  # so cheap to multiply that double precision costs nothing, and neighbours lie so close that it helps
_MANY_DIMS = 256  # from here on the products cost more than looking at them
_BLOCK = 128  # rows read at once while a set is measured
_KEPT_BYTES = 1 << 28  # a centred copy up to this size is kept: 256 MiB, 64k points of 2048 dimensions in bfloat16
_CACHED = 1 << 15  # differences held at once on a CPU, 256 KiB: they stay in its cache
_LAUNCHED = 1 << 24  # and on an accelerator, 128 MiB
_MATMUL_EPS = {"highest": 2.0**-23, "high": 2.0**-10, "medium": 2.0**-7}  # float32, TF32, bfloat16
_BFLOAT16_ROUNDING = 2.0**-9
_MODEST = (2.0**-20, 2.0**40)  # of coordinates that need no scaling
_WORTH = 2.5  # times faster: only then do bfloat16's wider bounds cost less than they save


@dataclass(frozen=True)
class PointSet:
    """One side of the comparison."""

    points: Tensor
    """(N, F), as given."""
    moved: Tensor | None
    """(N, F), centred, scaled and rounded for the product; None: made block by block."""
    norms: Tensor
    """(N,), squared norms after centring and scaling, less the slack."""
    slack: Tensor
    """(N,): the error of a pair is at most the sum of both points' slacks."""
    core: Tensor
    """(N,): what of the slack remains for a product that is exact once its factors are rounded."""

    def of(self, rows: Tensor) -> PointSet:
        """The same with only the points `rows` (int64)."""
        moved = None if self.moved is None else self.moved[rows]
        return PointSet(self.points[rows], moved, self.norms[rows], self.slack[rows], self.core[rows])


@dataclass(frozen=True)
class DistanceTiles:
    """Two sets, ready to be compared; `x` and `y` may be one and the same."""

    x: PointSet
    """N points."""
    y: PointSet
    """M points."""
    frame: _Frame

    @property
    def rough(self) -> bool:
        """Whether single precision would narrow the bounds, and cannot overflow."""
        return self.frame.product == torch.bfloat16 and self.frame.scale == 1.0

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every tile, row by row."""
        for rows in blocks(len(self.x.points), ROWS):
            for columns in blocks(len(self.y.points), COLUMNS):
                yield rows, columns

    def slices_of_half(self) -> Iterator[tuple[slice, slice]]:
        """Square tiles on and above the diagonal, where `x` is `y`: the others are their mirror images."""
        parts = list(blocks(len(self.x.points), ROWS))
        for place, rows in enumerate(parts):
            for columns in parts[place:]:
                yield rows, columns

    def facing(self, x: Tensor) -> DistanceTiles:
        """Another set, of the same type, against the same `y`, which is made ready only once where it can be."""
        if _scale(x) != self.frame.scale:
            return distance_tiles(x, self.y.points)
        return dataclasses.replace(self, x=self.frame.prepared(x))

    def of_rows(self, rows: Tensor) -> DistanceTiles:
        """The same with only the points `rows` (int64) of `x`."""
        return dataclasses.replace(self, x=self.x.of(rows))

    def lower(self, rows: slice, columns: slice) -> Tensor:
        """Lower bounds (rows, columns) of scaled squared distances; below zero where points nearly meet."""
        x, y = self.frame.block(self.x, rows), self.frame.block(self.y, columns)
        norms = self.x.norms[rows, None] + self.y.norms[columns]
        if x.dtype == torch.bfloat16:
            return norms.sub_(x @ y.T, alpha=2.0)
        return torch.addmm(norms, x, y.T, alpha=-2.0, out=norms)

    def bounds(self, lower: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds from below and above of the pairs (x_i, y_j) whose entries are given, scaled."""
        slack = self.x.slack[i] + self.y.slack[j]
        middle = lower + slack
        if self.frame.product == torch.bfloat16:  # nearly orthogonal pairs lose less to the rounding of their product
            product = (self.x.norms[i] + self.y.norms[j] + slack - middle).abs_()
            slack = torch.minimum(slack, self.x.core[i] + self.y.core[j] + 1.01 * _BFLOAT16_ROUNDING * product)
        return middle - slack, middle + slack

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Squared distances of the pairs (x_i, y_j), not scaled: float64."""
        return exact_squares(self.x.points, self.y.points, i, j)

    def single(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the pairs' squared distances, not scaled, from differences in single precision: float64."""
        squared = _squares(self.x.points, self.y.points, i, j, torch.float32).double()
        error = (self.x.points.shape[1] + 8) * 2.0**-23  # of a sum in any order, and more
        lost = self.x.points.shape[1] * torch.finfo(torch.float32).tiny  # squares that underflow
        return squared * (1.0 - error) - lost, squared * (1.0 + error) + lost

    def scaled(self, squared: Tensor) -> Tensor:
        """Squared distances (float64) in the units of the tiles, float64 still: a power of two makes no error."""
        return squared * self.frame.scale**2

    def not_below(self, squared: Tensor) -> Tensor:
        """Squared distances (float64) in the units and the precision of the tiles, rounded upwards."""
        near = self.scaled(squared).to(self.x.norms.dtype)
        return torch.nextafter(near, torch.full_like(near, math.inf))

    def not_above(self, squared: Tensor) -> Tensor:
        """Squared distances (float64) in the units and the precision of the tiles, rounded downwards."""
        near = self.scaled(squared).to(self.x.norms.dtype)
        return torch.nextafter(near, torch.full_like(near, -math.inf))


@dataclass(frozen=True)
class _Frame:
    """Where the origin lies, how long the unit is, and the precision of the products."""

    origin: Tensor
    """(F,), minus the centre, scaled."""
    scale: float
    """A power of two; bounds and slacks are in units of 1 / scale^2."""
    product: torch.dtype

    def moved(self, points: Tensor) -> Tensor:
        return torch.add(self.origin, points, alpha=self.scale)

    def block(self, side: PointSet, rows: slice) -> Tensor:
        if side.moved is not None:
            return side.moved[rows]
        return self.moved(side.points[rows]).to(self.product)

    def prepared(self, points: Tensor) -> PointSet:
        """A set with its norms and errors, measured block by block."""
        keep = points.numel() * torch.finfo(self.product).bits // 8 <= _KEPT_BYTES
        moved = points.new_empty(points.shape, dtype=self.product) if keep else None
        norms = points.new_empty(len(points), dtype=self.origin.dtype)
        rough = torch.zeros_like(norms)
        for rows in blocks(len(points), _BLOCK):
            block = self.moved(points[rows])
            rounded = block.to(self.product)
            if moved is not None:
                moved[rows] = rounded
            norms[rows] = torch.linalg.vector_norm(block, dim=1).square_()
            if self.product != self.origin.dtype:
                rough[rows] = torch.linalg.vector_norm(block.sub_(rounded), dim=1).square_()
        core = self._core(norms, rough, points.shape[1])
        slack = core
        if self.product == torch.bfloat16:
            slack = core + _BFLOAT16_ROUNDING * (norms.sqrt() + rough.sqrt()) ** 2
        return PointSet(points, moved, norms - slack, slack, core)

    def _core(self, norms: Tensor, rough: Tensor, size: int) -> Tensor:
        """What rounding in single or double precision and, given its squared lengths, of the factors can do."""
        wide = self.origin.dtype == torch.float64
        eps = 2.0**-52 if wide else _MATMUL_EPS[torch.get_float32_matmul_precision()]
        # Squares that underflow are lost without a relative error to show for it.
        core: Tensor = _SLACK * eps * size**0.5 * norms + size * torch.finfo(norms.dtype).tiny
        if self.product == torch.bfloat16:
            rho = max(float(rough.sum() / norms.sum().clamp_(min=2.0**-60)) ** 0.5, 2.0**-20)
            core += rho * norms + (1.0 / rho + 1.0) * rough
        return core


def distance_tiles(x: Tensor, y: Tensor) -> DistanceTiles:
    """Make two sets (N, F) and (M, F) of finite points ready to be compared."""
    wide = x.dtype == torch.float64 or y.dtype == torch.float64 or x.shape[1] <= _FEW_DIMS
    dtype = torch.float64 if wide else torch.float32
    centre = torch.stack([y[rows].to(dtype).sum(dim=0) for rows in blocks(len(y), _BLOCK)]).sum(dim=0) / len(y)
    scale = _scale(x) if x is y else min(_scale(x), _scale(y))
    narrow = not wide and x.device.type == "cpu" and x.shape[1] >= _MANY_DIMS and bfloat16_is_fast()
    frame = _Frame(centre * -scale, scale, torch.bfloat16 if narrow else dtype)
    side = frame.prepared(y)
    return DistanceTiles(side if x is y else frame.prepared(x), side, frame)


def _scale(points: Tensor) -> float:
    """A power of two that brings coordinates to where squares neither overflow nor underflow; mostly 1."""
    low, high = torch.aminmax(points)
    largest = max(float(high), -float(low))
    return 1.0 if largest == 0.0 or _MODEST[0] < largest < _MODEST[1] else 2.0 ** -math.frexp(largest)[1]


@functools.cache
def bfloat16_is_fast() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 far faster than of float32: timed once, in milliseconds."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(512, 512, dtype=dtype)
        tries = []
        for _ in range(4):  # the first of them warms up
            start = time.perf_counter()
            x @ x.T
            tries.append(time.perf_counter() - start)
        seconds[dtype] = min(tries)
    return seconds[torch.float32] > _WORTH * seconds[torch.bfloat16]


def blocks(num: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover 0 .. num-1."""
    for start in range(0, num, size):
        yield slice(start, min(start + size, num))


def exact_squares(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances of the pairs (x_i, y_j): float64."""
    return _squares(x, y, i, j, torch.float64)


def _squares(x: Tensor, y: Tensor, i: Tensor, j: Tensor, dtype: torch.dtype) -> Tensor:
    size = max(1, (_CACHED if x.device.type == "cpu" else _LAUNCHED) // x.shape[1])
    squared = torch.empty(len(i), dtype=dtype, device=x.device)  # small pieces kept apart would riddle the heap
    for part in blocks(len(i), size):
        # Twice as fast as x[i], and one type on both sides is faster than two.
        gap = x.index_select(0, i[part]).to(dtype).sub_(y.index_select(0, j[part]).to(dtype))
        squared[part] = torch.linalg.vecdot(gap, gap)
    return squared
