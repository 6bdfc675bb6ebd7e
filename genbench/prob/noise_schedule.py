"""Noise schedules of diffusion models: how much signal and how much noise is left at each time.

x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I),  alpha_t = sqrt(alpha_bar_t),  sigma_t = sqrt(1 - alpha_bar_t)

Time runs from t = 0, the data, to t = T; step t of the forward process leads from t - 1 to t. Everything here is
float64 on the CPU, since products of a thousand factors near 1 lose half their digits in float32.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["linear", "cosine"]
Variance = Literal["beta", "beta_tilde"]
"""Fixed variances of a reverse step (Ho et al. 2020, Sec. 3.2): `beta` is right for x_0 ~ N(0, I), `beta_tilde` for a
data set of one point; they are the upper and the lower bound of the true one for data of unit variance."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReverseSteps:
    """The posteriors q(x_s | x_t, x_0) = N(noisy x_t + data x_0, beta_tilde I) of steps from t back to s < t."""

    noisy: Tensor
    data: Tensor
    beta: Tensor
    """Variance of x_t given x_s: beta_t for single steps of a schedule."""
    beta_tilde: Tensor

    def variance(self, name: Variance) -> Tensor:
        """Variance of the model's step under one of the two fixed choices."""
        return self.beta if name == "beta" else self.beta_tilde


def reverse_steps(alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> ReverseSteps:
    """Posteriors of steps of any length, for any Gaussian path (Ho et al. 2020, Eq. 6 and 7, made general).

    With alpha_ts = alpha_t / alpha_s and beta = sigma_t^2 - alpha_ts^2 sigma_s^2, the variance of x_t given x_s:
    mean = alpha_ts sigma_s^2 / sigma_t^2 x_t + alpha_s beta / sigma_t^2 x_0, beta_tilde = beta sigma_s^2 / sigma_t^2.
    """
    ratio = alpha_t / alpha_s
    beta = sigma_t.square() - (ratio * sigma_s).square()
    kept = (sigma_s / sigma_t).square()
    return ReverseSteps(noisy=ratio * kept, data=alpha_s * beta / sigma_t.square(), beta=beta, beta_tilde=beta * kept)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseLevels:
    """The noise levels that a sampler visits, from noise to data: x = alpha x_0 + sigma eps at each of them.

    Any Gaussian path fits, be it variance preserving (alpha^2 + sigma^2 = 1) or exploding (alpha = 1).
    """

    t: Tensor
    """(S,): times at which the network is asked, descending."""
    alpha: Tensor
    """(S + 1,) float64, one for each time and 1 for the data at the end."""
    sigma: Tensor
    """(S + 1,) float64, one for each time and 0 for the data at the end."""

    @property
    def steps(self) -> ReverseSteps:
        """Posterior of each of the S steps."""
        return reverse_steps(self.alpha[:-1], self.sigma[:-1], self.alpha[1:], self.sigma[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A forward process in T steps."""

    alpha_bar: Tensor
    """(T + 1,) float64: share of the variance that is signal; 1 at t = 0, falling."""

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    @property
    def alpha(self) -> Tensor:
        """(T + 1,): factor of the data."""
        return self.alpha_bar.sqrt()

    @property
    def sigma(self) -> Tensor:
        """(T + 1,): standard deviation of the noise."""
        return (1.0 - self.alpha_bar).sqrt()

    @property
    def beta(self) -> Tensor:
        """(T,): variance that step t = 1 .. T adds."""
        return 1.0 - self.alpha_bar[1:] / self.alpha_bar[:-1]

    @property
    def snr(self) -> Tensor:
        """(T + 1,): signal-to-noise ratio alpha^2 / sigma^2; infinite at t = 0."""
        return self.alpha_bar / (1.0 - self.alpha_bar)

    @property
    def steps(self) -> ReverseSteps:
        """Posteriors of the steps from t = 1 .. T to t - 1."""
        alpha, sigma = self.alpha, self.sigma
        return reverse_steps(alpha[1:], sigma[1:], alpha[:-1], sigma[:-1])

    def levels(self, num_steps: int) -> NoiseLevels:
        """Evenly spaced levels from T down to 1, both included (Nichol and Dhariwal 2021, Sec. 4), then the data.

        Raises:
            ValueError: `num_steps` is not within 1 .. T.
        """
        self._check(num_steps)
        return self.levels_at(torch.linspace(self.num_steps, 1, num_steps, dtype=torch.float64).round().long())

    def karras_levels(self, num_steps: int, *, largest: float = 80.0, rho: float = 7.0) -> NoiseLevels:
        """Levels nearest to an even grid in (sigma / alpha)^(1/rho) down to t = 1 (Karras et al. 2022, Eq. 5).

        The grid starts at a ratio of `largest`, or at T where the schedule does not reach it: beyond, next to nothing
        is left of the data, and a schedule that ends in noise alone has ratios without bound there, which a solver that
        steps along the ratio cannot take.

        Raises:
            ValueError: `num_steps` is not within 1 .. T.
        """
        self._check(num_steps)
        ratio = (self.sigma[1:] / self.alpha[1:]).pow(1.0 / rho)  # of t = 1 .. T, rising
        grid = torch.linspace(float(ratio.clamp(max=largest ** (1.0 / rho))[-1]), float(ratio[0]), num_steps)
        t = (ratio[None] - grid.double()[:, None]).abs().argmin(1) + 1
        for i in range(1, num_steps):  # small ratios lie closer than the steps of the schedule
            t[i] = min(int(t[i]), int(t[i - 1]) - 1)
        least = torch.arange(num_steps, 0, -1)
        return self.levels_at(torch.maximum(t, least))

    def _check(self, num_steps: int) -> None:
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"a schedule of {self.num_steps} steps has no sub-sequence of {num_steps}")

    def levels_at(self, t: Tensor) -> NoiseLevels:
        """The levels at times `t` (S,) int64, descending within T .. 1, then the data."""
        visited = torch.cat([t, torch.zeros(1, dtype=torch.long)])
        return NoiseLevels(t=t, alpha=self.alpha[visited], sigma=self.sigma[visited])


def noise_schedule(name: ScheduleName, num_steps: int) -> NoiseSchedule:
    """The schedule of that name in `num_steps` steps."""
    return linear_schedule(num_steps) if name == "linear" else cosine_schedule(num_steps)


def linear_schedule(num_steps: int, *, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
    """Variances beta_t that rise evenly from `first` to `last` (Ho et al. 2020, Sec. 4).

    The two ends are meant for 1,000 steps; they are scaled by 1000 / T, so that other
    numbers of steps add as much noise.
    """
    scale = 1000 / num_steps
    beta = torch.linspace(first * scale, last * scale, num_steps, dtype=torch.float64)
    return schedule_of_betas(beta.clamp(max=0.999))


def cosine_schedule(num_steps: int, *, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """alpha_bar_t = f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2) (Nichol and Dhariwal 2021, Eq. 17).

    No beta_t exceeds `max_beta`, which keeps the last step from erasing everything.
    """
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    f = torch.cos((t + offset) / (1 + offset) * (math.pi / 2)).square()
    return schedule_of_betas((1.0 - f[1:] / f[:-1]).clamp(max=max_beta))


def schedule_of_betas(beta: Tensor) -> NoiseSchedule:
    """The schedule that adds the variances `beta` (T,), each in (0, 1), one after the other."""
    ones = torch.ones(1, dtype=torch.float64)
    return NoiseSchedule(alpha_bar=torch.cat([ones, torch.cumprod(1.0 - beta.double(), dim=0)]))
