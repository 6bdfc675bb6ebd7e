"""Distributions of one image given its code, over the stored integers 0 .. levels-1; each sums to 1 over all levels.

A decoder gives `values` (B, outputs, H, W) for every pixel and a `scale` that all pixels share. Three laws read them:

- `logistic`: a mixture of discretised logistics, one component for a whole pixel (`prob/discretized_logistic.py`).
- `gaussian`: a discretised Gaussian with a learned variance for each channel. Level k sits at x_k = 2k/(levels-1) - 1,
  and its probability is the mass of its bin, with h = 1/(levels-1) and the two end bins reaching to infinity:
  P(k) = Phi((x_k + h - mu) / sigma) - Phi((x_k - h - mu) / sigma). The density at x_k, which many implementations of
  variational autoencoders report, is no probability: it grows beyond all bounds as sigma falls.
- `bernoulli`: on two levels, P(1) = s(l) with the logit l and the sigmoid s. On more levels, the number of heads in
  n = levels-1 throws of that coin, P(k) = (n choose k) s(l)^k s(-l)^(n-k). The cross-entropy between k/n and s(l),
  often called a Bernoulli likelihood of grey pixels, is -1/n log P(k) up to a constant, and is no likelihood. A coin
  cannot say how sure it is of a grey: the spread of 255 throws is at most 8 levels. It is meant for binarised data.

On two levels all three are one law, a coin for each pixel and channel: with one component, the logit of the logistic
is mu / scale, and the probit of the Gaussian mu / sigma.

Symbols: x integers, k one level, mu location, sigma standard deviation, l logit, C channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from genbench.prob import discretized_logistic as logistic
from genbench.prob import gaussian
from genbench.prob.pixels import to_signed, to_uint8

PixelLaw = Literal["logistic", "bernoulli", "gaussian"]

RAREST = 1e-3  # share of heads at which Burda et al. (2015, 1509.00519) start a pixel that is never on

# Gauss-Legendre nodes and weights on [-1, 1] with four points (Abramowitz and Stegun, 1964, Table 25.4): exact for
# polynomials up to degree 7, and for a bin that is at most one standard deviation wide to the last bit of float32.
NODES = (-0.861136311594052575, -0.339981043584856265, 0.339981043584856265, 0.861136311594052575)
WEIGHTS = (0.347854845137453857, 0.652145154862546143, 0.652145154862546143, 0.347854845137453857)


@dataclass(frozen=True, kw_only=True)
class PixelLikelihood(ABC):
    """p(x|z) of every pixel, as read from the outputs of a decoder."""

    levels: int
    """Size of the alphabet, at least 2."""
    num_channels: int

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Values that a decoder gives for every pixel."""

    @abstractmethod
    def initial_scale(self) -> Tensor:
        """Where the trainable scales start; empty where the law has none."""

    @abstractmethod
    def values_of_mean(self, x: Tensor) -> Tensor:
        """Values whose mean is the mean of the images x (B, C, H, W), for a decoder to start from: (outputs, H, W)."""

    @abstractmethod
    def log_prob(self, x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        """Log-probability of every pixel, channels taken together: (B, H, W), nats.

        Args:
            x: (B, C, H, W), integers 0 .. levels-1.
            values: (B, outputs, H, W).
            scale: of the shape of `initial_scale`.
        """

    @abstractmethod
    def sample(self, values: Tensor, scale: Tensor, *, generator: Generator) -> Tensor:
        """Draw every pixel: (B, C, H, W) uint8."""

    @abstractmethod
    def mean(self, values: Tensor, scale: Tensor) -> Tensor:
        """Level nearest to the mean of each pixel: (B, C, H, W) uint8."""


def pixel_likelihood(law: PixelLaw, *, levels: int, num_channels: int, num_mixtures: int = 1) -> PixelLikelihood:
    """The likelihood of the given name; `num_mixtures` is of the logistic alone."""
    if law == "bernoulli":
        return CoinThrows(levels=levels, num_channels=num_channels)
    if law == "gaussian":
        return DiscretisedGaussian(levels=levels, num_channels=num_channels)
    return LogisticMixture(levels=levels, num_channels=num_channels, num_mixtures=num_mixtures)


@dataclass(frozen=True, kw_only=True)
class LogisticMixture(PixelLikelihood):
    """A mixture of discretised logistics whose scales all pixels share."""

    num_mixtures: int = 1

    @property
    def num_outputs(self) -> int:
        """A weight and C locations for each component."""
        return logistic.num_parameters(self.num_mixtures, self.num_channels)

    def initial_scale(self) -> Tensor:
        """(components, C)."""
        return logistic.initial_scale(self.num_mixtures, self.num_channels)

    def values_of_mean(self, x: Tensor) -> Tensor:
        """Equal weights, and the mean for the location of every component."""
        mu = to_signed(x, self.levels).mean(0)
        return torch.cat([torch.zeros_like(mu[:1]), mu]).repeat(self.num_mixtures, 1, 1)

    def log_prob(self, x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        """Log of the sum over components."""
        return logistic.mixture_log_prob(x, logistic.split_mixture(values, scale), levels=self.levels)

    def sample(self, values: Tensor, scale: Tensor, *, generator: Generator) -> Tensor:
        """A component for each pixel, then its channels."""
        return logistic.mixture_sample(logistic.split_mixture(values, scale), levels=self.levels, generator=generator)

    def mean(self, values: Tensor, scale: Tensor) -> Tensor:
        """Mean location over the components."""
        return logistic.mixture_mean(logistic.split_mixture(values, scale), levels=self.levels)


@dataclass(frozen=True, kw_only=True)
class DiscretisedGaussian(PixelLikelihood):
    """A Gaussian integrated over the bin of each level, with one variance for all pixels of a channel."""

    @property
    def num_outputs(self) -> int:
        """C locations."""
        return self.num_channels

    def initial_scale(self) -> Tensor:
        """(C,), log sigma divided by `SCALE_GAIN`; as wide as the first component of the logistic."""
        return torch.full((self.num_channels,), -1.0) / logistic.SCALE_GAIN

    def values_of_mean(self, x: Tensor) -> Tensor:
        """The mean."""
        return to_signed(x, self.levels).mean(0)

    def log_prob(self, x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        """Log of the mass of a bin, summed over channels."""
        return gaussian_bin_log_prob(x, values.float(), self._log_sigma(scale), levels=self.levels).sum(1)

    def sample(self, values: Tensor, scale: Tensor, *, generator: Generator) -> Tensor:
        """Round a Gaussian draw to its bin."""
        mu = values.float()
        log_sigma = self._log_sigma(scale).expand_as(mu)
        return to_uint8(gaussian.reparameterised(mu, log_sigma, generator=generator), self.levels)

    def mean(self, values: Tensor, scale: Tensor) -> Tensor:
        """The location, rounded."""
        return to_uint8(values.float(), self.levels)

    def _log_sigma(self, scale: Tensor) -> Tensor:
        """Log sigma on the [-1, 1] axis, with the floor of the logistic: (C, 1, 1)."""
        return (logistic.SCALE_GAIN * scale.float()).clamp_min(logistic.MIN_LOG_SCALE)[:, None, None]


@dataclass(frozen=True, kw_only=True)
class CoinThrows(PixelLikelihood):
    """A coin for each pixel and channel, thrown levels-1 times; on two levels, the Bernoulli distribution."""

    @property
    def num_outputs(self) -> int:
        """C logits."""
        return self.num_channels

    def initial_scale(self) -> Tensor:
        """None: empty."""
        return torch.empty(0)

    def values_of_mean(self, x: Tensor) -> Tensor:
        """Logit of the share of heads, kept away from 0 and 1 by `RAREST`."""
        share = x.double().mean(0) / (self.levels - 1)
        return torch.logit(share.clamp(RAREST, 1.0 - RAREST)).float()

    def log_prob(self, x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        """Sum over channels of k log s(l) + (n - k) log s(-l) + log (n choose k)."""
        if self.levels == 2:
            return -F.binary_cross_entropy_with_logits(values.float(), x.float(), reduction="none").sum(1)
        n, logits = self.levels - 1, values.double()  # two terms of up to n log 2 cancel: float32 would lose digits
        cross_entropy = F.binary_cross_entropy_with_logits(logits, x.double() / n, reduction="none")
        return (_log_choose(n, device=x.device)[x.long()] - n * cross_entropy).sum(1).float()

    def sample(self, values: Tensor, scale: Tensor, *, generator: Generator) -> Tensor:
        """Throw every coin."""
        p = torch.sigmoid(values.float())
        if self.levels == 2:
            return (torch.rand(p.shape, generator=generator, device=p.device) < p).to(torch.uint8)
        return torch.binomial(torch.full_like(p, self.levels - 1), p, generator=generator).to(torch.uint8)

    def mean(self, values: Tensor, scale: Tensor) -> Tensor:
        """Heads to be expected, n s(l), rounded; on two levels the likelier one."""
        return (torch.sigmoid(values.float()) * (self.levels - 1)).round().to(torch.uint8)


def gaussian_bin_log_prob(x: Tensor, mu: Tensor, log_sigma: Tensor, *, levels: int) -> Tensor:
    """Elementwise log-probability of integers under a discretised Gaussian, nats.

    The mass of a bin is a difference of two cumulatives where these differ by a factor, and an integral by four points
    where the bin is narrow and the difference would cancel.

    Args:
        x: integers 0 .. levels-1; broadcasts with `mu` and `log_sigma`.
        mu: location on the [-1, 1] axis; may lie outside.
        log_sigma: log of the standard deviation on the same axis.
        levels: size of the alphabet, at least 2.
    """
    half_axis = (levels - 1) / 2.0
    width = torch.exp(-log_sigma) / half_axis  # of a bin, in standard deviations
    level = x.to(mu.dtype)
    middle = (level - (mu + 1.0) * half_axis) * width  # of the bin, in standard deviations from mu
    at_bottom = _log_cdf(middle + 0.5 * width)
    at_top = _log_cdf(0.5 * width - middle)
    if levels == 2:
        return torch.where(x == 0, at_bottom, at_top)
    inside = _inner_bin(middle.abs(), width)
    return torch.where(x == 0, at_bottom, torch.where(x == levels - 1, at_top, inside))


def _inner_bin(middle: Tensor, width: Tensor) -> Tensor:
    """Log of the standard Gaussian mass of a bin; by symmetry `middle` is not negative."""
    narrow = (width < 1.0) & (0.5 * width * middle < 1.0)  # and the log-density changes by less than 2 over the bin
    near_tail = _log_cdf(0.5 * width - middle)  # log of the mass beyond the near edge
    far_tail = _log_cdf(-0.5 * width - middle)
    gap = torch.where(narrow, 1.0, near_tail - far_tail)  # the way that is not taken must have a finite gradient
    by_difference = near_tail + torch.log(-torch.expm1(-gap))
    half, start = torch.where(narrow, 0.5 * width, 0.5), torch.where(narrow, middle, 0.0)
    integral = torch.zeros_like(start)  # of the density over that in the middle, from -1 to 1
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        offset = half * node
        integral = integral + weight * torch.exp(-offset * (start + 0.5 * offset))
    by_points = gaussian.standard_log_prob(start) + torch.log(half * integral)
    return torch.where(narrow, by_points, by_difference)


def _log_cdf(x: Tensor) -> Tensor:
    """Log of the standard Gaussian mass below x.

    The slope of `torch.special.log_ndtr` is a difference of squares, of which float32 keeps three digits at x = -100
    and none at x = -10,000; the scaled complement of the error function keeps them all.
    """
    tail = x.clamp_max(-1.0)
    in_tail = torch.log(0.5 * torch.special.erfcx(tail * -math.sqrt(0.5))) - 0.5 * tail.square()
    return torch.where(x < -1.0, in_tail, torch.special.log_ndtr(x.clamp_min(-1.0)))


def _log_choose(n: int, *, device: torch.device) -> Tensor:
    """Log (n choose k) of every k: (n+1,) float64."""
    k = torch.arange(n + 1, dtype=torch.float64, device=device)
    return math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
