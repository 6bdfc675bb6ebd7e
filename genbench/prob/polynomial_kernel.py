"""Squared maximum mean discrepancy under the cubic kernel, unbiased, with its standard error.

Legend: `k(x, y) = (x.y / F + 1)^3` (Binkowski et al. 2018, arXiv:1801.01401, Sec. 4);
X (n, F) and Y (m, F) are two sets of features.

Features in single precision stay so in matrix products; with e = x.y/F - b and b near the mean of
x.y/F between the sets, k - (1 + b)^3 = e (e^2 + 3 (1 + b) e + 3 (1 + b)^2), so that the sums of a block are
over numbers as small as the spread of the kernel, and the constant cancels in the discrepancy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from genbench.prob.discrepancy import (
    ROWS,
    Draw,
    MeanDiscrepancy,
    SubsetDiscrepancies,
    as_floats,
    draw_subsets,
    over_subsets,
    u_statistic,
)

ROWS_IN_CACHE = 64
"""Rows of a block taken through all steps of the polynomial at once: twice as fast as the block step by step."""


@dataclass(frozen=True)
class CubicKernel:
    """(x.y / F + 1)^3 less its value where x.y / F is `base`."""

    num_features: int
    base: float

    def __call__(self, dots: Tensor, squares_x: Tensor, squares_y: Tensor) -> Tensor:
        """Kernel of points with these dot products (overwritten); lengths do not matter."""
        del squares_x, squares_y
        middle = 1.0 + self.base
        for e in dots.split(ROWS_IN_CACHE):
            e.div_(self.num_features).sub_(self.base)
            e.mul_((e + 3.0 * middle).mul_(e).add_(3.0 * middle**2))
        return dots


def cubic_kernel(x: Tensor, y: Tensor) -> CubicKernel:
    """The cubic kernel, shifted to near the mean dot product between two sets, by their first rows."""
    base = float(x[:ROWS].double().mean(dim=0) @ y[:ROWS].double().mean(dim=0)) / x.shape[1]
    return CubicKernel(x.shape[1], base)


def mean_discrepancy(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> MeanDiscrepancy:
    """The U-statistic over all pairs, with an analytic standard error.

    Args:
        x: (n, F), n > 1.
        y: (m, F), m > 1.
    """
    x, y = as_floats(x, y)
    return u_statistic(x, y, cubic_kernel(x, y))


def subset_mean(x: np.ndarray | Tensor, y: np.ndarray | Tensor, draws: list[Draw]) -> SubsetDiscrepancies:
    """The U-statistic of given subsets, at least two, and their mean with its standard error."""
    x, y = as_floats(x, y)
    return over_subsets(x, y, cubic_kernel(x, y), draws)


def subset_discrepancies(
    x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, num_subsets: int, size: int, seed: int
) -> np.ndarray:
    """The U-statistic of random subsets, drawn in the order of torch-fidelity: (num_subsets,).

    Args:
        x: (n, F), generated.
        y: (m, F), real.
        num_subsets: how many subsets of each set, at least 2.
        size: examples in a subset, drawn without replacement; at most n and m.
        seed: of NumPy's `RandomState`.
    """
    random = np.random.RandomState(seed)  # the stream that published values were drawn with
    return subset_mean(x, y, draw_subsets(len(x), len(y), num_subsets=num_subsets, size=size, random=random)).values
