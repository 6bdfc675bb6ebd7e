"""Mixtures of discretised logistics over pixels whose channels are drawn one after another.

A component is chosen for a whole pixel. Given it, a channel is a discretised logistic whose location moves linearly
with the channels before it, here for red, green and blue (Salimans et al. 2017, 1701.05517, Eq. 3):

    mu_g(r) = mu_g + alpha r,    mu_b(r, g) = mu_b + beta r + gamma g,

with r and g on the axis from -1 to 1 and coefficients that are a tanh of what a network says. All channels before are
known when one is drawn, so the probabilities of all pixels sum to 1, as those of each channel do.

Symbols: `B H W` images, `C` channels, `K` components, alpha beta gamma `coefficients`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genbench.prob import discretized_logistic as logistic
from genbench.prob.pixels import to_signed


class CoupledMixture(NamedTuple):
    """Parameters of a mixture of K components for every pixel of B images."""

    mixture: logistic.Mixture
    """Weights and scales, and locations while the channels before are at 0, the middle of the axis."""
    coefficients: Tensor
    """(B, K, C (C-1) / 2, H, W), in order of the channel that moves, then of the one that moves it."""


def num_pairs(num_channels: int) -> int:
    """Coefficients of each component: one for a channel and each before it."""
    return num_channels * (num_channels - 1) // 2


def located(x: Tensor, coupled: CoupledMixture, *, levels: int) -> logistic.Mixture:
    """The mixture with the locations that the channels of x move, given a component: (B, K, C, H, W).

    Args:
        x: (B, C, H, W), integers 0 .. levels-1.
        coupled: parameters.
        levels: size of the alphabet, at least 2.
    """
    weights, mu, log_scale = coupled.mixture
    before = to_signed(x, levels).to(mu.dtype).unsqueeze(1)
    moved = [_moved(c, before, mu, coupled.coefficients, dim=2) for c in range(mu.shape[2])]
    return logistic.Mixture(weights, torch.stack(moved, dim=2), log_scale)


def mixture_log_prob(x: Tensor, coupled: CoupledMixture, *, levels: int) -> Tensor:
    """Log-probability of every pixel, channels taken together: (B, H, W), nats; arguments as of `located`."""
    return logistic.mixture_log_prob(x, located(x, coupled, levels=levels), levels=levels)


def inverted(u: Tensor, coupled: CoupledMixture, *, levels: int) -> Tensor:
    """Pixels from uniforms, for the component and for each channel: (B, C, H, W) uint8.

    A channel is rounded to its level before it moves the next, as where probabilities are taken.

    Args:
        u: (B, 1 + C, H, W), in [0, 1).
        coupled: parameters.
        levels: size of the alphabet, at least 2.
    """
    weights = coupled.mixture.logits.softmax(1).cumsum(1)
    index = (weights <= u[:, :1]).sum(1).clamp_max(weights.shape[1] - 1)  # a sum of weights may round to below 1
    mu, log_scale, coefficients = (
        logistic.of_component(index, values) for values in (*coupled.mixture[1:], coupled.coefficients)
    )
    x = torch.zeros(mu.shape, dtype=torch.uint8, device=mu.device)
    for c in range(mu.shape[1]):
        location = _moved(c, to_signed(x, levels).to(mu.dtype), mu, coefficients, dim=1)
        x[:, c] = logistic.inverted(u[:, 1 + c], location, log_scale[:, c], levels=levels)
    return x


def _moved(c: int, x: Tensor, mu: Tensor, coefficients: Tensor, *, dim: int) -> Tensor:
    """Location of channel `c`, moved by those before it; channels are along `dim`."""
    ours = coefficients.narrow(dim, num_pairs(c), c)
    return mu.select(dim, c) + (ours * x.narrow(dim, 0, c)).sum(dim)
