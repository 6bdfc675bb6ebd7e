"""Noise levels that a sampler visits, spaced evenly in sigma^(1/rho) (Karras et al. 2022, arXiv:2206.00364, Eq. 5).

sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i = 0 .. N - 1, then 0

rho = 1 spaces them evenly, and a growing rho spends ever more of the steps on little noise: rho = 3 would make the
errors of all steps about equal, and the authors found that images gain from 7. The path is variance exploding,
x = x_0 + sigma eps, and its time is sigma. Everything here is float64 on the CPU, as in `prob.noise_schedule`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.prob.noise_schedule import NoiseLevels


def karras_sigmas(num_levels: int, *, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """The levels sigma_0 > ... > sigma_(N-1), without the 0 behind them: (N,) float64.

    Args:
        num_levels: N; a single one is `sigma_max`.
        sigma_min: the last.
        sigma_max: the first.
        rho: how much denser they lie at the small end; 1 is even.

    Raises:
        ValueError: no level, or ends or exponent that make no descending grid.
    """
    if num_levels < 1 or not 0.0 < sigma_min < sigma_max or rho <= 0.0:
        raise ValueError(
            f"a grid has at least 1 level, 0 < sigma_min < sigma_max and rho > 0, found {num_levels} levels in "
            f"{sigma_min} .. {sigma_max} with rho {rho}"
        )
    share = torch.arange(num_levels, dtype=torch.float64) / max(1, num_levels - 1)
    first, last = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
    sigma: Tensor = (first + share * (last - first)).pow(rho)
    sigma[0] = sigma_max
    if num_levels > 1:
        sigma[-1] = sigma_min  # as given, not as rounded by the two powers
    return sigma


def karras_levels(num_steps: int, *, sigma_min: float, sigma_max: float, rho: float) -> NoiseLevels:
    """Those levels and the data at the end, for a sampler; arguments as those of `karras_sigmas`."""
    sigma = karras_sigmas(num_steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    return NoiseLevels(
        t=sigma,
        alpha=torch.ones(num_steps + 1, dtype=torch.float64),
        sigma=torch.cat([sigma, torch.zeros(1, dtype=torch.float64)]),
    )
