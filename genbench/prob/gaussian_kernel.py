"""The Gaussian kernel exp(-|x - y|^2 / (2 sigma^2)), less one, and its squared mean discrepancies.

Values near one are where single precision fails: with unit vectors and sigma = 10 the kernel lies in
[0.98, 1] and a discrepancy of 1e-5 is the difference of three such means. Everything here is in
double precision and in exp(.) - 1, which keeps the digits; the constant cancels in the discrepancy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genbench.prob.discrepancy import (
    Draw,
    MeanDiscrepancy,
    SubsetDiscrepancies,
    over_subsets,
    u_statistic,
    v_statistic,
)


@dataclass(frozen=True)
class GaussianKernel:
    """exp(-|x - y|^2 / (2 sigma^2)) - 1."""

    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma > 0.0:
            raise ValueError(f"sigma of a Gaussian kernel is {self.sigma}, expected a number above 0")

    def __call__(self, dots: Tensor, squares_x: Tensor, squares_y: Tensor) -> Tensor:
        """Kernel of points with these dot products (overwritten) and squared lengths, less one."""
        distances = dots.mul_(-2.0).add_(squares_x).add_(squares_y).clamp_(min=0.0)
        return distances.mul_(-0.5 / self.sigma**2).expm1_()


def gaussian_discrepancy(x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, sigma: float) -> MeanDiscrepancy:
    """The U-statistic over all pairs of (n, F) and (m, F), unbiased, with an analytic standard error."""
    return u_statistic(*_doubles(x, y), GaussianKernel(sigma))


def gaussian_discrepancy_biased(x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, sigma: float) -> MeanDiscrepancy:
    """The V-statistic over all pairs of (n, F) and (m, F): never below zero, biased upwards."""
    return v_statistic(*_doubles(x, y), GaussianKernel(sigma))


def gaussian_subset_mean(
    x: np.ndarray | Tensor, y: np.ndarray | Tensor, draws: list[Draw], *, sigma: float
) -> SubsetDiscrepancies:
    """The U-statistic of given subsets, at least two, and their mean with its standard error."""
    return over_subsets(*_doubles(x, y), GaussianKernel(sigma), draws)


def _doubles(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in double precision, moved by the mean of Y: the kernel does not see it, |x|^2 does."""
    first, second = (torch.as_tensor(part).detach().double() for part in (x, y))
    middle = second.mean(dim=0)
    return first - middle, second - middle
