"""Squared maximum mean discrepancy under any kernel, with its standard error, from blocks of the kernel matrix.

Legend: X (n, F) and Y (m, F) are two sets of features; `h` is the kernel centred in both arguments.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)

(Gretton et al. 2012, Eq. 3.) No kernel matrix is ever held whole, half of a symmetric one is skipped,
and every sum over more than one block is in double precision. A constant added to the kernel cancels
in all that is computed here, so kernels come shifted to where a block's sums lose least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from genbench.prob.intervals import Z95

ROWS = 1280
"""Rows and columns of a kernel matrix held at once, at most."""

NOISE_SHARE = 0.15
"""Of what equal laws would show, left in the slope of an interval: simulated coverage 0.92 to 0.96."""

LEAST_SHARE = 0.5
"""Of the second-order variance, that a standard error keeps whatever the first order comes out as: with it the mean
standard error is within 6 % of the simulated spread, for equal laws and for different ones."""

Draw = tuple[np.ndarray, np.ndarray]
"""Indices of one subset of X and one of Y, without repeats within a set."""


class Kernel(Protocol):
    """A kernel of dot products and squared lengths, up to a constant."""

    def __call__(self, dots: Tensor, squares_x: Tensor, squares_y: Tensor) -> Tensor:
        """Kernel of points with these dot products (overwritten) and squared lengths, broadcast against them."""
        ...


@dataclass(frozen=True)
class MeanDiscrepancy:
    """A squared discrepancy and its uncertainty over the draw of both sets."""

    value: float
    stderr: float
    ci95: tuple[float, float]
    """95 % interval; see `_Moments.interval`."""


@dataclass(frozen=True)
class SubsetDiscrepancies:
    """The U-statistic of subsets."""

    values: np.ndarray
    """(number of subsets,) float64."""
    mean: MeanDiscrepancy
    """Its error is that of both sets and that of having drawn finitely many subsets."""


@dataclass(frozen=True)
class _Sums:
    """Of one kernel matrix; the diagonal of a symmetric one is left out."""

    rows: Tensor
    columns: Tensor
    squares: float
    chosen: Tensor
    """(S,): sums over the pairs that each column of the indicators chooses."""


@dataclass(frozen=True)
class _Moments:
    """What the variance of the U-statistic is made of, seen in sets of n and m."""

    value: float
    first_x: float
    """Variance over X of its mean kernel with X less that with Y; the second-order noise is still in it."""
    first_y: float
    xx: float
    """Mean square of `h` within X: the variance that neither margin explains."""
    yy: float
    xy: float
    self_x: float
    """Mean kernel of a point of X with itself less that of two points."""
    self_y: float
    n: int
    m: int

    def bias(self, n: int, m: int) -> float:
        """What the pairs of a point with itself add to the V-statistic."""
        return self.self_x / n + self.self_y / m

    def first_order(self, n: int, m: int) -> float:
        """Variance that comes of the mean kernels of single points (Serfling 1980, Sec. 5.2).

        Its plug-in counts the second order twice. What is left without is unbiased, and so comes out below zero half
        of the time where the two laws are equal.
        """
        zeta_x = self.first_x - self.xx / (self.n - 1) - self.xy / self.m
        zeta_y = self.first_y - self.yy / (self.m - 1) - self.xy / self.n
        return 4.0 * zeta_x / n + 4.0 * zeta_y / m

    def second_order(self, n: int, m: int) -> float:
        """Variance that comes of pairs: all there is where the two laws are equal."""
        return 2.0 * self.xx / (n * (n - 1)) + 2.0 * self.yy / (m * (m - 1)) + 4.0 * self.xy / (n * m)

    def stderr(self, n: int, m: int, *, drawn: float = 0.0) -> float:
        """Standard error of the U-statistic in sets of n and m.

        The noise of the first order below zero is kept: cut at zero, the mean error of equal laws comes out 10 to 20 %
        too large. In its place the sum is cut, at `LEAST_SHARE` of the second order.
        """
        first, second = self.first_order(n, m), self.second_order(n, m)
        return math.sqrt(max(first + second, LEAST_SHARE * second) + drawn)

    def estimate(self, value: float, n: int, m: int, *, drawn: float = 0.0) -> MeanDiscrepancy:
        """`value` with its standard error and interval, in sets of n and m.

        The first-order variance grows in proportion to the discrepancy itself, so that a low value
        comes with a low standard error, and value plus and minus 1.96 of them misses 10 % of the time
        near zero. The interval therefore holds every discrepancy t with (value - t)^2 <= 1.96^2
        (slope t + second order), as Wilson's does for shares. `slope` is the ratio of the first order
        to the value, both with a share of what equal laws would show, so that neither vanishes.

        Args:
            value: of the U-statistic, or of a mean over subsets.
            n: points of X.
            m: points of Y.
            drawn: variance of having drawn finitely many subsets.
        """
        first, second = self.first_order(n, m), self.second_order(n, m)
        slope = (max(first, 0.0) + 2.0 * NOISE_SHARE * second) / (max(value, 0.0) + NOISE_SHARE * self.bias(n, m))
        floor = second + drawn
        half = Z95**2 * slope / 2.0
        reach = math.sqrt(max(half**2 + Z95**2 * (slope * value + floor), 0.0))
        low, high = value + half - reach, value + half + reach
        if low < 0.0:
            low = value - Z95 * math.sqrt(floor)
        plain = self.stderr(n, m, drawn=drawn)
        return MeanDiscrepancy(value, plain, (min(low, value), max(high, value + Z95 * math.sqrt(floor))))


def u_statistic(x: Tensor, y: Tensor, kernel: Kernel) -> MeanDiscrepancy:
    """Unbiased, over all pairs, with an analytic standard error. Needs n > 1 and m > 1."""
    moments, _ = _all_pairs(x, y, kernel)
    return moments.estimate(moments.value, len(x), len(y))


def v_statistic(x: Tensor, y: Tensor, kernel: Kernel) -> MeanDiscrepancy:
    """Biased upwards by the pairs of a point with itself, never below zero; Gretton et al. 2012, Eq. 5."""
    moments, _ = _all_pairs(x, y, kernel)
    unbiased = moments.estimate(moments.value, len(x), len(y))
    bias = moments.bias(len(x), len(y))
    low, high = unbiased.ci95
    return MeanDiscrepancy(max(unbiased.value + bias, 0.0), unbiased.stderr, (max(low + bias, 0.0), high + bias))


def over_subsets(x: Tensor, y: Tensor, kernel: Kernel, draws: Sequence[Draw]) -> SubsetDiscrepancies:
    """The U-statistic of each of at least two subsets, and their mean.

    One pass over all pairs serves all subsets and the standard error; only where that pass is dearer
    than the subsets one by one (large sets) are they visited so, and the moments averaged over them.
    """
    n, m = len(x), len(y)
    pairs = sum(len(rows) ** 2 + len(columns) ** 2 + len(rows) * len(columns) for rows, columns in draws)
    if n**2 + m**2 + n * m <= pairs:
        values, moments = _subsets_at_once(x, y, kernel, draws)
    else:
        values, moments = _subsets_one_by_one(x, y, kernel, draws)
    drawn = float(values.var(ddof=1)) / len(values)
    return SubsetDiscrepancies(values, moments.estimate(float(values.mean()), n, m, drawn=drawn))


def draw_subsets(
    n: int, m: int, *, num_subsets: int, size: int, random: np.random.RandomState, y_first: bool = False
) -> list[Draw]:
    """Subsets without replacement, alternately of X and of Y; `y_first` if Y is drawn before X."""
    draws = []
    for _ in range(num_subsets):
        pair = [random.choice(count, size, replace=False) for count in ((m, n) if y_first else (n, m))]
        draws.append((pair[1], pair[0]) if y_first else (pair[0], pair[1]))
    return draws


def as_floats(*parts: np.ndarray | Tensor) -> tuple[Tensor, ...]:
    """Tensors of one floating type: float64 if any of them is, else float32 (half precision is promoted)."""
    found = [torch.as_tensor(part).detach() for part in parts]
    double = any(part.dtype not in (torch.float32, torch.float16, torch.bfloat16) for part in found)
    return tuple(part.to(torch.float64 if double else torch.float32) for part in found)


def _all_pairs(
    x: Tensor, y: Tensor, kernel: Kernel, chosen: tuple[Tensor, Tensor] | None = None
) -> tuple[_Moments, tuple[_Sums, _Sums, _Sums]]:
    n, m = len(x), len(y)
    chosen_x, chosen_y = (part.new_empty(len(part), 0) for part in (x, y)) if chosen is None else chosen
    lengths = x.square().sum(dim=1), y.square().sum(dim=1)
    xx, yy = _within(x, lengths[0], kernel, chosen_x), _within(y, lengths[1], kernel, chosen_y)
    xy = _across((x, y), lengths, kernel, (chosen_x, chosen_y))
    mean_x, mean_y, mean_xy = xx.rows / (n - 1), yy.rows / (m - 1), xy.rows / m
    moments = _Moments(
        value=float(mean_x.mean() + mean_y.mean() - 2.0 * mean_xy.mean()),
        first_x=float((mean_x - mean_xy).var()),
        first_y=float((mean_y - xy.columns / n).var()),
        xx=_interaction(xx.squares / (n * (n - 1)), mean_x, mean_x),
        yy=_interaction(yy.squares / (m * (m - 1)), mean_y, mean_y),
        xy=_interaction(xy.squares / (n * m), mean_xy, xy.columns / n),
        self_x=_on_diagonal(lengths[0], kernel) / n - float(mean_x.mean()),
        self_y=_on_diagonal(lengths[1], kernel) / m - float(mean_y.mean()),
        n=n,
        m=m,
    )
    return moments, (xx, yy, xy)


def _interaction(square: float, row_means: Tensor, column_means: Tensor) -> float:
    """Mean square less what the two margins explain; >= 0."""
    explained = row_means.square().mean() + column_means.square().mean() - row_means.mean().square()
    return max(0.0, square - float(explained))


def _subsets_at_once(x: Tensor, y: Tensor, kernel: Kernel, draws: Sequence[Draw]) -> tuple[np.ndarray, _Moments]:
    chosen = x.new_zeros(len(x), len(draws)), y.new_zeros(len(y), len(draws))
    for subset, draw in enumerate(draws):
        for indicator, indices in zip(chosen, draw, strict=True):
            indicator[torch.as_tensor(indices, device=x.device), subset] = 1.0
    moments, (xx, yy, xy) = _all_pairs(x, y, kernel, chosen)
    sizes = [torch.tensor([float(len(draw[side])) for draw in draws], dtype=torch.float64) for side in (0, 1)]
    on_x, on_y = (size.to(x.device) for size in sizes)
    values = xx.chosen / (on_x * (on_x - 1.0)) + yy.chosen / (on_y * (on_y - 1.0)) - 2.0 * xy.chosen / (on_x * on_y)
    return values.cpu().numpy(), moments


def _subsets_one_by_one(x: Tensor, y: Tensor, kernel: Kernel, draws: Sequence[Draw]) -> tuple[np.ndarray, _Moments]:
    seen = []
    for rows, columns in draws:
        subset_x, subset_y = x[torch.as_tensor(rows, device=x.device)], y[torch.as_tensor(columns, device=y.device)]
        seen.append(_all_pairs(subset_x, subset_y, kernel)[0])
    pooled = _Moments(
        value=float(np.mean([one.value for one in seen])),
        first_x=float(np.mean([one.first_x for one in seen])),
        first_y=float(np.mean([one.first_y for one in seen])),
        xx=float(np.mean([one.xx for one in seen])),
        yy=float(np.mean([one.yy for one in seen])),
        xy=float(np.mean([one.xy for one in seen])),
        self_x=float(np.mean([one.self_x for one in seen])),
        self_y=float(np.mean([one.self_y for one in seen])),
        n=seen[0].n,
        m=seen[0].m,
    )
    return np.array([one.value for one in seen]), pooled


def _within(x: Tensor, lengths: Tensor, kernel: Kernel, chosen: Tensor) -> _Sums:
    """Sums over ordered pairs of two different points; each block above the diagonal stands for two."""
    rows = x.new_zeros(len(x), dtype=torch.float64)
    totals, squares = x.new_zeros(chosen.shape[1], dtype=torch.float64), 0.0
    extended = _with_ones(chosen)
    for i, j in combinations_with_replacement(_blocks(len(x)), 2):
        dots = _gram(x[i]) if i == j else x[i] @ x[j].T
        block = kernel(dots, lengths[i, None], lengths[None, j])
        if i == j:
            block.fill_diagonal_(0.0)
        else:
            rows[j] += block.sum(dim=0)
        twice = 1.0 if i == j else 2.0
        products = block @ extended[j]  # (rows, S + 1), the last column sums each row
        rows[i] += products[:, -1]
        totals += twice * (products[:, :-1] * chosen[i]).sum(dim=0, dtype=torch.float64)
        squares += twice * _square_sum(block)
    return _Sums(rows, rows, squares, totals)


def _across(
    sets: tuple[Tensor, Tensor], lengths: tuple[Tensor, Tensor], kernel: Kernel, chosen: tuple[Tensor, Tensor]
) -> _Sums:
    (x, y), (lengths_x, lengths_y), (chosen_x, chosen_y) = sets, lengths, chosen
    rows, columns = (part.new_zeros(len(part), dtype=torch.float64) for part in (x, y))
    totals, squares = x.new_zeros(chosen_x.shape[1], dtype=torch.float64), 0.0
    extended = _with_ones(chosen_y)
    for i in _blocks(len(x)):
        for j in _blocks(len(y)):
            block = kernel(x[i] @ y[j].T, lengths_x[i, None], lengths_y[None, j])
            products = block @ extended[j]
            rows[i] += products[:, -1]
            columns[j] += block.sum(dim=0)
            totals += (products[:, :-1] * chosen_x[i]).sum(dim=0, dtype=torch.float64)
            squares += _square_sum(block)
    return _Sums(rows, columns, squares, totals)


def _gram(x: Tensor) -> Tensor:
    """Dot products within one block; NumPy's BLAS does half the work where it sees a matrix and its transpose."""
    if x.device.type != "cpu":
        return x @ x.T
    rows = x.numpy()
    return torch.from_numpy(rows @ rows.T)


def _blocks(length: int) -> list[slice]:
    """Blocks of nearly equal size."""
    size = -(-length // -(-length // ROWS))
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def _with_ones(chosen: Tensor) -> Tensor:
    return torch.cat([chosen, chosen.new_ones(len(chosen), 1)], dim=1)


def _square_sum(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block, dim=1).double().square().sum())


def _on_diagonal(lengths: Tensor, kernel: Kernel) -> float:
    return float(kernel(lengths.clone(), lengths, lengths).sum(dtype=torch.float64))
