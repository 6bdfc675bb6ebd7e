"""Log-likelihoods in the units that papers give: nats of the stored integers, bits per dimension.

A density of data scaled to [low, high] is turned into a probability of integers by the volume of one bin,
`((high - low) / levels)^D`, so

    bits/dim = -log p(y) / (D ln 2) + log2(levels / (high - low))

with offset 8 for 256 levels on [0, 1) and 7 on [-1, 1). Holds for data dequantised within their bins, and is then a
lower bound in the mean (Theis et al. 2016, arXiv:1511.01844, Sec. 3.1).

Legend: `D` dimensions of one example, `K` draws from the posterior or the noise, `B` examples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bits_per_dim(nats: Tensor, num_dims: int) -> Tensor:
    """Code length of each example in bits per dimension: (B,) float64.

    Args:
        nats: (B,), log-probabilities of the stored integers.
        num_dims: D.

    Raises:
        ValueError: no dimension.
    """
    if num_dims < 1:
        raise ValueError(f"bits per dimension need at least 1 dimension, found {num_dims}")
    return -nats.double() / (num_dims * math.log(2.0))


def density_offset(*, low: float, high: float, levels: int) -> float:
    """Bits per dimension that a density of data on [low, high) lacks: `log2(levels / (high - low))`.

    Example:
        >>> density_offset(low=0.0, high=1.0, levels=256), density_offset(low=-1.0, high=1.0, levels=256)
        (8.0, 7.0)

    Raises:
        ValueError: an empty range or fewer than 2 levels.
    """
    if not high > low or levels < 2:
        raise ValueError(
            f"the range is {low} .. {high} in {levels} levels, expected high above low and 2 levels or more"
        )
    return math.log2(levels / (high - low))


def scaled_density_to_nats(log_density: Tensor, num_dims: int, *, low: float, high: float, levels: int) -> Tensor:
    """Nats of the stored integers from a log-density of data scaled to [low, high): (B,) float64.

    Args:
        log_density: (B,), nats, of data dequantised within their bins and then scaled.
        num_dims: D.
        low: what the lower edge of level 0 becomes.
        high: what the upper edge of the last level becomes.
        levels: number of values a dimension can take.

    Raises:
        ValueError: as `density_offset` says.
    """
    return log_density.double() - num_dims * math.log(2.0) * density_offset(low=low, high=high, levels=levels)


def importance_weighted(log_weights: Tensor) -> Tensor:
    """Importance-weighted lower bound `log 1/K sum_k w_k` of each example: (B,) float64.

    Args:
        log_weights: (K, B), `log p(x, z_k) - log q(z_k | x)`; for variational dequantisation
            `log p(x + u_k) - log q(u_k | x)`. One draw gives the evidence lower bound.

    Burda et al. 2016, arXiv:1509.00519, Eq. 8.

    Raises:
        ValueError: no draw, or not a matrix.
    """
    if log_weights.ndim != 2 or not len(log_weights):
        raise ValueError(f"log-weights have shape {tuple(log_weights.shape)}, expected (K, B) with at least 1 draw")
    return torch.logsumexp(log_weights.double(), dim=0) - math.log(len(log_weights))
