"""Discretised logistic distributions on the integers 0 .. levels-1, and mixtures of them over pixels.

Level k sits at 2k/(levels-1) - 1, where `prob.pixels` puts it, in a bin that reaches h = 1/(levels-1)
to either side; the two end bins reach to infinity, so that the bins cover the line and the
probabilities sum to 1. `mu` and `log_scale` are in units of that [-1, 1] axis. Between the ends

    P(k) = s(a) - s(b),    a = (x_k + h - mu) / scale,    b = (x_k - h - mu) / scale,    s = sigmoid,

whose logarithm, -softplus(-a) - softplus(b) + log(1 - exp(b - a)), is finite and has a gradient at any
scale; the subtraction itself underflows (Salimans et al., 2017, 1701.05517, replace it there by a density,
which no longer sums to 1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from genbench.prob.pixels import to_uint8

MIN_LOG_SCALE = -7.0  # pixel-cnn's floor; the centre of 256 levels then holds at most 97 % in one bin
SCALE_GAIN = 10.0  # a step of Adam moves a parameter by its learning rate, which is slow for a log-scale


def log_prob(x: Tensor, mu: Tensor, log_scale: Tensor, *, levels: int) -> Tensor:
    """Elementwise log-probability of integers, nats.

    Args:
        x: integers 0 .. levels-1; broadcasts with `mu` and `log_scale`.
        mu: location on the [-1, 1] axis; may lie outside.
        log_scale: log of the scale on the same axis.
        levels: size of the alphabet, at least 2.
    """
    half_axis = (levels - 1) / 2.0
    inverse_scale = torch.exp(-log_scale) / half_axis
    centre = (mu + 1.0) * half_axis  # in levels, where the edge shared by two bins is one and the same float
    level = x.to(mu.dtype)
    below_top = -F.softplus((centre - (level + 0.5)) * inverse_scale)  # log s(a)
    above_bottom = -F.softplus((level - 0.5 - centre) * inverse_scale)  # log(1 - s(b))
    width = torch.log(-torch.expm1(-inverse_scale))  # log(1 - exp(b - a))
    inside = below_top + above_bottom + width
    return torch.where(x == 0, below_top, torch.where(x == levels - 1, above_bottom, inside))


def sample(mu: Tensor, log_scale: Tensor, *, levels: int, generator: Generator) -> Tensor:
    """Draw integers by rounding a logistic draw to its bin: uint8 of the shape of `mu`."""
    u = torch.rand(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return inverted(u, mu, log_scale, levels=levels)


def inverted(u: Tensor, mu: Tensor, log_scale: Tensor, *, levels: int) -> Tensor:
    """Integers whose cumulative probabilities enclose u in [0, 1): uint8; all are of one shape."""
    u = u.clamp_min(torch.finfo(u.dtype).tiny)
    return to_uint8(mu + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u)), levels)


class Mixture(NamedTuple):
    """Parameters of a mixture of K components for every pixel of B images."""

    logits: Tensor
    """(B, K, H, W), weights of the components before the softmax."""
    mu: Tensor
    """(B, K, C, H, W)."""
    log_scale: Tensor
    """(B, K, C, H, W)."""


def num_parameters(num_mixtures: int, num_channels: int) -> int:
    """Channels that `split_mixture` wants: a weight and C locations for each component."""
    return num_mixtures * (1 + num_channels)


def initial_scale(num_mixtures: int, num_channels: int) -> Tensor:
    """Trainable scales for `split_mixture` to start from, (K, C): component k starts at exp(-1 - k)."""
    log_scale = -1.0 - torch.arange(num_mixtures, dtype=torch.float32)
    return log_scale.unsqueeze(1).repeat(1, num_channels) / SCALE_GAIN


def split_mixture(values: Tensor, scale: Tensor) -> Mixture:
    """Read the output of a network as weights and locations, beside scales shared by all pixels; float32.

    Args:
        values: (B, K (1 + C), H, W).
        scale: (K, C), log-scales divided by `SCALE_GAIN`; floored at `MIN_LOG_SCALE`.
    """
    K, C = scale.shape
    logits, mu = values.float().unflatten(1, (K, 1 + C)).split([1, C], dim=2)
    log_scale = (SCALE_GAIN * scale.float()).clamp_min(MIN_LOG_SCALE)[:, :, None, None]
    return Mixture(logits.squeeze(2), mu, log_scale.expand_as(mu))


def mixture_log_prob(x: Tensor, mixture: Mixture, *, levels: int) -> Tensor:
    """Log-probability of every pixel, channels taken together: (B, H, W), nats.

    One component is chosen for a whole pixel, and its channels are independent given the component:
    P(pixel) = sum_k softmax(logits)_k prod_c P(x_c | mu_kc, scale_kc).

    Args:
        x: (B, C, H, W), integers 0 .. levels-1.
        mixture: parameters.
        levels: size of the alphabet, at least 2.
    """
    of_component = log_prob(x.unsqueeze(1), mixture.mu, mixture.log_scale, levels=levels).sum(2)  # (B, K, H, W)
    return torch.logsumexp(of_component + F.log_softmax(mixture.logits, dim=1), dim=1)


def mixture_sample(mixture: Mixture, *, levels: int, generator: Generator) -> Tensor:
    """Draw a component for each pixel, then its channels: (B, C, H, W) uint8."""
    logits = mixture.logits
    u = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    limits = torch.finfo(logits.dtype)
    gumbel = -torch.log(-torch.log(u.clamp(limits.tiny, 1.0 - limits.eps)))
    index = (logits + gumbel).argmax(1)  # (B, H, W)
    mu, log_scale = of_component(index, mixture.mu), of_component(index, mixture.log_scale)
    return sample(mu, log_scale, levels=levels, generator=generator)


def mixture_mean(mixture: Mixture, *, levels: int) -> Tensor:
    """Level nearest to the mean location of each pixel: (B, C, H, W) uint8."""
    weights = F.softmax(mixture.logits, dim=1).unsqueeze(2)  # (B, K, 1, H, W)
    return to_uint8((weights * mixture.mu.clamp(-1.0, 1.0)).sum(1), levels)


def of_component(index: Tensor, values: Tensor) -> Tensor:
    """Values (B, K, C, H, W) of the component `index` (B, H, W) of each pixel: (B, C, H, W)."""
    B, _, C, H, W = values.shape
    return values.gather(1, index[:, None, None].expand(B, 1, C, H, W)).squeeze(1)
