"""Squared maximum mean discrepancy under the cubic kernel, unbiased, with its standard error.

Legend: `k(x, y) = (x.y / F + 1)^3`; X (n, F) and Y (m, F) are two sets of features;
`h` is the kernel centred in both arguments.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)

(Gretton et al. 2012, Eq. 3; Binkowski et al. 2018, arXiv:1801.01401, for the kernel.)
Kernel matrices are visited in blocks of rows and never held whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ROWS = 1024
"""Rows of a kernel matrix held at once."""


@dataclass(frozen=True)
class MeanDiscrepancy:
    """A squared discrepancy and its standard error over the draw of both sets."""

    value: float
    stderr: float


@dataclass(frozen=True)
class _Block:
    """What the variance needs to know of one kernel matrix."""

    row_means: np.ndarray
    column_means: np.ndarray
    mean: float
    interaction: float
    """Mean square of `h`: the variance that neither margin explains."""


def mean_discrepancy(x: np.ndarray, y: np.ndarray) -> MeanDiscrepancy:
    """The U-statistic over all pairs, with an analytic standard error.

    With a = row means of k(X, X) without the diagonal less those of k(X, Y), the first-order terms
    are 4 Var(a)/n and its like for Y. Their plug-in counts the second-order term
    V2 = 2 E h_xx^2/(n(n-1)) + 2 E h_yy^2/(m(m-1)) + 4 E h_xy^2/(nm) twice, so it is taken off once;
    V2 alone is the variance where the two laws are equal, and the floor.

    Args:
        x: (n, F), n > 1.
        y: (m, F), m > 1.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n, m = len(x), len(y)
    xx, yy, xy = _within(x), _within(y), _across(x, y)
    first = 4.0 * np.var(xx.row_means - xy.row_means, ddof=1) / n
    first += 4.0 * np.var(yy.row_means - xy.column_means, ddof=1) / m
    second = 2.0 * xx.interaction / (n * (n - 1)) + 2.0 * yy.interaction / (m * (m - 1))
    second += 4.0 * xy.interaction / (n * m)
    variance = max(first - second, second, 0.0)
    return MeanDiscrepancy(xx.mean + yy.mean - 2.0 * xy.mean, float(np.sqrt(variance)))


def subset_discrepancies(x: np.ndarray, y: np.ndarray, *, num_subsets: int, size: int, seed: int) -> np.ndarray:
    """The U-statistic of random subsets, drawn in the order of torch-fidelity: (num_subsets,).

    Args:
        x: (n, F), generated.
        y: (m, F), real.
        num_subsets: how many subsets of each set.
        size: examples in a subset, drawn without replacement; at most n and m.
        seed: of NumPy's `RandomState`.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    random = np.random.RandomState(seed)  # the stream that published values were drawn with
    drawn = [
        (random.choice(len(x), size, replace=False), random.choice(len(y), size, replace=False))
        for _ in range(num_subsets)
    ]
    if len(x) * len(y) > num_subsets * size**2:  # the whole kernel matrix costs more than all subsets
        return np.array([_discrepancy(x[rows], y[columns]) for rows, columns in drawn])
    chosen_x, chosen_y = np.zeros((len(x), num_subsets)), np.zeros((len(y), num_subsets))
    for subset, (rows, columns) in enumerate(drawn):
        chosen_x[rows, subset] = 1.0
        chosen_y[columns, subset] = 1.0
    within = _chosen_sums(x, x, chosen_x, chosen_x) - _diagonal(x) @ chosen_x
    within += _chosen_sums(y, y, chosen_y, chosen_y) - _diagonal(y) @ chosen_y
    return within / (size * (size - 1)) - 2.0 * _chosen_sums(x, y, chosen_x, chosen_y) / size**2


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    size = len(x)
    ones_x, ones_y = np.ones((len(x), 1)), np.ones((len(y), 1))
    within = _chosen_sums(x, x, ones_x, ones_x) - _diagonal(x).sum()
    within += _chosen_sums(y, y, ones_y, ones_y) - _diagonal(y).sum()
    return float((within / (size * (size - 1)) - 2.0 * _chosen_sums(x, y, ones_x, ones_y) / size**2)[0])


def _chosen_sums(x: np.ndarray, y: np.ndarray, chosen_x: np.ndarray, chosen_y: np.ndarray) -> np.ndarray:
    """Sum of k(x_i, y_j) over the pairs that each column of the indicators chooses."""
    total = np.zeros(chosen_x.shape[1])
    for rows, kernel in _kernel_rows(x, y):
        total += ((kernel @ chosen_y) * chosen_x[rows]).sum(axis=0)
    return total


def _within(x: np.ndarray) -> _Block:
    n = len(x)
    sums, squares = np.empty(n), 0.0
    for rows, kernel in _kernel_rows(x, x):
        sums[rows] = kernel.sum(axis=1)
        squares += float(np.vdot(kernel, kernel))
    diagonal = _diagonal(x)
    means = (sums - diagonal) / (n - 1)
    square = (squares - float(diagonal @ diagonal)) / (n * (n - 1))
    mean = float(means.mean())
    return _Block(means, means, mean, max(0.0, square - 2.0 * float(means @ means) / n + mean**2))


def _across(x: np.ndarray, y: np.ndarray) -> _Block:
    n, m = len(x), len(y)
    row_sums, column_sums, squares = np.empty(n), np.zeros(m), 0.0
    for rows, kernel in _kernel_rows(x, y):
        row_sums[rows] = kernel.sum(axis=1)
        column_sums += kernel.sum(axis=0)
        squares += float(np.vdot(kernel, kernel))
    row_means, column_means = row_sums / m, column_sums / n
    mean = float(row_means.mean())
    margins = float(row_means @ row_means) / n + float(column_means @ column_means) / m
    return _Block(row_means, column_means, mean, max(0.0, squares / (n * m) - margins + mean**2))


def _kernel_rows(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        base = x[rows] @ y.T / x.shape[1] + 1.0
        yield rows, base * base * base


def _diagonal(x: np.ndarray) -> np.ndarray:
    return np.asarray(((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 3)
