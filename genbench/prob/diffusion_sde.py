"""Stochastic differential equations that turn data into noise: variance exploding, preserving and sub-preserving.

dx = f(t) x dt + g(t) dw  has  x_t = alpha_t x_0 + sigma_t eps,  0 <= t <= 1  (Song et al. 2021, arXiv:2011.13456)

alpha and sigma solve d alpha / dt = f alpha and d sigma^2 / dt = 2 f sigma^2 + g^2. With B(t) the integral of beta:

VE       f = 0           g^2 = d sigma^2 / dt              alpha = 1        sigma = sigma_min (sigma_max / sigma_min)^t
VP       f = -beta / 2   g^2 = beta                        alpha = e^(-B/2)   sigma^2 = 1 - e^(-B)
sub-VP   f = -beta / 2   g^2 = beta (1 - e^(-2B))          alpha = e^(-B/2)   sigma = 1 - e^(-B)

For VE this sigma is the paper's Eq. 31 and the authors' code: the process starts at t = 0 from data that carry noise of
sigma_min already. Started from the data themselves it would have sigma^2(t) - sigma_min^2 in place of sigma^2(t).

The ratio r = sigma / alpha rises with t and can be inverted, and d log r^2 / dt = g^2 / sigma^2 for all three. Scores
diverge at t = 0, so that training, samplers and likelihoods stop at some t_min. Everything is computed in the type of
its argument; levels are float64 on the CPU, as in `prob.noise_schedule`.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from genbench.prob.noise_schedule import NoiseLevels

SDEName = Literal["ve", "vp", "subvp"]


class DiffusionSDE(ABC):
    """A linear diffusion from data at t = 0 to noise at t = 1; times and results are tensors of one shape."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Standard deviation of the centred normal law that stands for that of x_1."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """Logarithm of the factor of the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """f, the factor of x in the drift."""

    @abstractmethod
    def squared_diffusion(self, t: Tensor) -> Tensor:
        """g^2."""

    @abstractmethod
    def time(self, ratio: Tensor) -> Tensor:
        """Time at which sigma / alpha is `ratio`."""

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the data."""
        return self.log_alpha(t).exp()

    def ratio(self, t: Tensor) -> Tensor:
        """Ratio r = sigma / alpha of noise and data."""
        return self.sigma(t) * (-self.log_alpha(t)).exp()

    def even_levels(self, num_levels: int, *, t_min: float) -> NoiseLevels:
        """Evenly spaced times from 1 down to `t_min`, then the data; a single one is 1."""
        return self._levels(_grid(1.0, t_min, num_levels))

    def log_snr_levels(self, num_levels: int, *, t_min: float) -> NoiseLevels:
        """Levels from 1 down to `t_min` that are even in log(alpha / sigma), then the data; a single one is 1."""
        first, last = self.ratio(torch.tensor([1.0, t_min], dtype=torch.float64)).log().tolist()
        t = self.time(_grid(first, last, num_levels).exp())
        t[0] = 1.0
        if num_levels > 1:
            t[-1] = t_min  # as given, not as rounded on the way there and back
        return self._levels(t)

    def _levels(self, t: Tensor) -> NoiseLevels:
        one = torch.ones(1, dtype=torch.float64)
        return NoiseLevels(
            t=t, alpha=torch.cat([self.alpha(t), one]), sigma=torch.cat([self.sigma(t), torch.zeros_like(one)])
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceExploding(DiffusionSDE):
    """VE: noise is added to data that are never shrunk."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"noise grows from sigma_min > 0 to sigma_max, found {self.sigma_min} to {self.sigma_max}")

    @property
    def prior_std(self) -> float:
        """sigma_max."""
        return self.sigma_max

    def log_alpha(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * (self._growth * t).exp()

    def drift(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def squared_diffusion(self, t: Tensor) -> Tensor:
        """2 sigma^2 log(sigma_max / sigma_min)."""
        return 2.0 * self._growth * self.sigma(t).square()

    def time(self, ratio: Tensor) -> Tensor:
        """Time at which sigma is `ratio`."""
        return (ratio / self.sigma_min).log() / self._growth

    @property
    def _growth(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LinearBeta(DiffusionSDE):
    """What VP and sub-VP share: data that shrink at a rate that rises evenly with time."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_min <= self.beta_max:
            raise ValueError(f"beta is positive and does not fall, found {self.beta_min} to {self.beta_max}")

    @property
    def prior_std(self) -> float:
        """1."""
        return 1.0

    def beta(self, t: Tensor) -> Tensor:
        """beta_min + t (beta_max - beta_min)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """-B / 2, with B = t beta_min + t^2 (beta_max - beta_min) / 2."""
        return -0.5 * t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def drift(self, t: Tensor) -> Tensor:
        """-beta / 2."""
        return -0.5 * self.beta(t)

    def _time_of(self, log_alpha: Tensor) -> Tensor:
        """The positive root of B(t) = -2 log_alpha, written without a difference of near equals."""
        root = (self.beta_min**2 - 4.0 * (self.beta_max - self.beta_min) * log_alpha).sqrt()
        return -4.0 * log_alpha / (self.beta_min + root)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariancePreserving(_LinearBeta):
    """VP: alpha^2 + sigma^2 = 1, the limit of DDPM in many steps."""

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2)."""
        return (-torch.expm1(2.0 * self.log_alpha(t))).sqrt()

    def squared_diffusion(self, t: Tensor) -> Tensor:
        """It is beta."""
        return self.beta(t)

    def time(self, ratio: Tensor) -> Tensor:
        """By log alpha = -log(1 + r^2) / 2."""
        return self._time_of(-0.5 * ratio.square().log1p())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubVariancePreserving(_LinearBeta):
    """sub-VP: the same alpha with less noise at every time, sigma = 1 - alpha^2."""

    def sigma(self, t: Tensor) -> Tensor:
        """1 - alpha^2."""
        return -torch.expm1(2.0 * self.log_alpha(t))

    def squared_diffusion(self, t: Tensor) -> Tensor:
        """It is beta (1 - alpha^4)."""
        return -self.beta(t) * torch.expm1(4.0 * self.log_alpha(t))

    def time(self, ratio: Tensor) -> Tensor:
        """By r = 1 / alpha - alpha, so that log alpha = -asinh(r / 2)."""
        return self._time_of(-torch.asinh(0.5 * ratio))


def _grid(first: float, last: float, num: int) -> Tensor:
    """(num,) float64 from `first` to `last`, both as given."""
    if num < 1:
        raise ValueError(f"a sampler visits at least 1 level, found {num}")
    return torch.linspace(first, last, num, dtype=torch.float64)
