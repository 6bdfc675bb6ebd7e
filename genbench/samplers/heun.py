"""Heun's method on the probability flow, plain and with churn (Karras et al. 2022, arXiv:2206.00364, Alg. 1 and 2).

On u = x / alpha against r = sigma / alpha the probability flow of any Gaussian path is du / dr = (u - x_0_hat) / r,
whose curvature is that of the denoiser alone. A step goes along the slope at its start (Euler), then again from the
start along the mean of the slopes at both its ends: an error of order two for two calls of the network. The step to
the data has no slope at its end and stays Euler's, which gives x_0_hat itself; all steps left so are implicit steps
without noise (`samplers/ddim.py`, eta = 0).

Churn adds noise before a step and lets the step take away that much more: errors of earlier steps are forgotten.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers._protocol import Denoiser, noise_like, times

Place = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Time and alpha of the levels r = sigma / alpha, (S,) float64 both, of r (S,) float64."""
MOST_CHURN = math.sqrt(2.0) - 1.0
"""Largest gamma: a step never more than doubles the variance of the noise (Algorithm 2)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Churn:
    """How much noise Algorithm 2 adds before its steps; levels are r = sigma / alpha."""

    amount: float = 0.0
    """S_churn, shared out over the steps: r grows by gamma = min(S_churn / S, sqrt(2) - 1); 0 is Algorithm 1."""
    lowest: float = 0.0
    """S_tmin: no noise is added below this level."""
    highest: float = math.inf
    """S_tmax: no noise is added above this level."""
    noise_scale: float = 1.0
    """S_noise: standard deviation of what is added, a little above 1 where the denoiser removes too much."""

    def __post_init__(self) -> None:
        if self.amount < 0.0 or self.noise_scale < 0.0 or self.lowest > self.highest:
            raise ValueError(f"churn is not negative and lies between levels in order, found {self}")

    def gamma(self, r: Tensor) -> Tensor:
        """Growth of each of the levels `r` (S,): the same shape."""
        inside = (r >= self.lowest) & (r <= self.highest)
        return torch.where(inside, min(self.amount / len(r), MOST_CHURN), 0.0)


def heun(denoise: Denoiser, x: Tensor, levels: NoiseLevels) -> Tensor:
    """Walk from noise to data without noise (Algorithm 1): the shape of `x`, 2 S - 1 calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit.
    """
    visited = _levels(levels.sigma[:-1] / levels.alpha[:-1], levels.alpha, times(levels, x))
    u = x / visited[0].alpha
    for here, there in zip(visited, [*visited[1:], None], strict=True):
        u = _step(denoise, u, here, there)
    return u


def time_is_sigma(r: Tensor) -> tuple[Tensor, Tensor]:
    """Place of levels on the path x = x_0 + sigma eps whose time is sigma, as of `prob.karras_levels`."""
    return r, torch.ones_like(r)


def heun_churn(
    denoise: Denoiser,
    x: Tensor,
    levels: NoiseLevels,
    *,
    churn: Churn,
    generator: Generator,
    place: Place = time_is_sigma,
) -> Tensor:
    """Walk from noise to data, adding noise on the way (Algorithm 2): the shape of `x`, 2 S - 1 calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data, at any level.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit.
        churn: how much noise is added, and where.
        generator: source of the noise, on the device of `x`; left alone where no step adds any.
        place: time and alpha of levels between those visited, at which the network is asked too.

    Raises:
        ValueError: `place` gives the visited levels other times or alphas than they have.
    """
    r = levels.sigma[:-1] / levels.alpha[:-1]
    _check_place(place, levels, r)
    grown_r = r * (1.0 + churn.gamma(r))
    t, alpha = place(grown_r)
    added = (churn.noise_scale * (grown_r.square() - r.square()).clamp(min=0.0).sqrt()).tolist()
    visited = _levels(r, levels.alpha, times(levels, x))
    grown = _levels(grown_r, alpha, times(dataclasses.replace(levels, t=t), x))
    u = x / visited[0].alpha
    for std, here, there in zip(added, grown, [*visited[1:], None], strict=True):
        if std > 0.0:
            u = u + std * noise_like(u, generator)
        u = _step(denoise, u, here, there)
    return u


@dataclasses.dataclass(frozen=True, eq=False)
class _Level:
    """One level of noise: r = sigma / alpha, alpha, and its time for all rows (B,)."""

    r: float
    alpha: float
    t: Tensor


def _levels(r: Tensor, alpha: Tensor, t: tuple[Tensor, ...]) -> list[_Level]:
    return [_Level(*level) for level in zip(r.tolist(), alpha.tolist(), t, strict=False)]


def _step(denoise: Denoiser, u: Tensor, here: _Level, there: _Level | None) -> Tensor:
    """From one level to the next, or to the data where there is none."""
    guess = denoise(here.alpha * u, here.t)
    if there is None:
        return guess
    euler = torch.lerp(guess, u, there.r / here.r)
    slope = (u - guess) / here.r
    slope_there = (euler - denoise(there.alpha * euler, there.t)) / there.r
    return u + 0.5 * (there.r - here.r) * (slope + slope_there)


def _check_place(place: Place, levels: NoiseLevels, r: Tensor) -> None:
    """A level that gets no noise must be the level that was asked for."""
    t, alpha = place(r)
    if not torch.allclose(t.double(), levels.t.double()) or not torch.allclose(alpha, levels.alpha[:-1]):
        raise ValueError("`place` puts the levels elsewhere than they are: say where levels of this path lie")
