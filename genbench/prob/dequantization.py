"""Integers to points of the unit cube and back, with the log-Jacobians that keep likelihoods in nats of the integers.

With `y = (x + r) / levels` and `r` uniform on [0, 1)^D, a density `p(y)` gives by Jensen's inequality
`log P(x) >= E_r[log p(y)] - D log(levels)`: Theis, van den Oord, Bethge, "A note on the evaluation of generative
models", 2016, arXiv:1511.01844, Sec. 3.1.

Legend: `x` integers 0 .. levels-1, `y` point of [0, 1)^D, `h` point of R^D, `D` dimensions of one example.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

NOISE_MARGIN = 2.0**-16
"""Distance the noise keeps from 0 and 1: the spacing of float32 just below 256. Without it `x + r` can round into
the next integer, and the pixel that comes back is not the one that went in."""


def dequantise(x: Tensor, levels: int, *, generator: Generator | None = None) -> Tensor:
    """Uniformly noised integers, each inside its own bin: shape of `x`, float32 in (0, 1).

    Args:
        x: integers 0 .. levels-1, at most 256 levels.
        levels: number of values a pixel can take.
        generator: source of the noise; None draws from the global stream, as training does.
    """
    noise = torch.rand(x.shape, generator=generator, device=x.device)
    return (x.float() + noise.clamp(NOISE_MARGIN, 1.0 - NOISE_MARGIN)) / levels


def dequantise_signed(x: Tensor, levels: int, *, generator: Generator | None = None) -> Tensor:
    """Uniformly noised integers around their places in [-1, 1], as `prob.pixels` puts them: shape of `x`, float32.

    Bins are 2 / (levels - 1) wide, so that the end ones reach half a bin beyond; arguments as those of `dequantise`.
    """
    return (2.0 * dequantise(x, levels, generator=generator) - 1.0) * (levels / (levels - 1))


def bin_centres(x: Tensor, levels: int) -> Tensor:
    """Integers as the middles of their bins: shape of `x`, float32 in (0, 1)."""
    return (x.float() + 0.5) / levels


def quantise(y: Tensor, levels: int) -> Tensor:
    """Integer of the bin that holds each coordinate: uint8, 0 .. levels-1; points outside [0, 1) go to the end bins."""
    return (y * levels).floor().clamp(0, levels - 1).to(torch.uint8)


def integer_log_likelihood(log_density: Tensor, num_dims: int, levels: int) -> Tensor:
    """Lower bound of `log P(x)` in nats from `log p(y)` of the dequantised point: (B,).

    The volume of one bin, `levels^-D`, is the Jacobian between a density over the cube and a probability of integers.
    """
    return log_density - num_dims * math.log(levels)


def to_logits(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """`h = logit(alpha + (1 - 2 alpha) y)` and `log |dh/dy|` summed over each example: (B, ...) and (B,).

    Args:
        y: points of [0, 1]^D.
        alpha: how far the ends of the interval are kept from 0 and 1, so that their logits are finite.
    """
    p = alpha + (1.0 - 2.0 * alpha) * y
    log_p, log_q = p.log(), torch.log1p(-p)
    log_slope = math.log(1.0 - 2.0 * alpha) - log_p - log_q
    return log_p - log_q, log_slope.flatten(1).sum(1)


def from_logits(h: Tensor, alpha: float) -> Tensor:
    """Inverse of `to_logits`: shape of `h`; in [0, 1] for `h` in its range, at most alpha / (1 - 2 alpha) outside."""
    return (h.sigmoid() - alpha) / (1.0 - 2.0 * alpha)
