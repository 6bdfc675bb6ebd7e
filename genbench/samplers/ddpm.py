"""Ancestral sampling (Ho, Jain and Abbeel 2020, arXiv:2006.11239, Algorithm 2).

x_s ~ N(noisy x_t + data x_0_hat, variance I): the posterior q(x_s | x_t, x_0) with the network's x_0_hat for x_0.
Levels that skip times are respaced as by Nichol and Dhariwal (2021, arXiv:2102.09672, Sec. 4). The last step
returns its mean, x_0_hat. With learned variances (there, Eq. 15) the network says of every dimension where between
beta_tilde and beta its variance lies.

A slope, the gradient of some log-probability in x_t, shifts the means by variance times slope (Dhariwal and Nichol
2021, arXiv:2105.05233, Algorithm 1): to first order in the step, the same as adding it to the score. The last step has
no noise and is not shifted.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Generator, Tensor

from genbench.prob.diffusion_bound import learned_log_variance
from genbench.prob.noise_schedule import NoiseLevels, Variance
from genbench.samplers._protocol import Denoiser, Slope, noise_like, times


class SharingDenoiser(Protocol):
    """A denoiser that also says what share of the way from log beta_tilde to log beta its variance lies."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Estimate x_0 and the share of every dimension: the shape of `x_t` each; arguments as of `Denoiser`."""


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    levels: NoiseLevels,
    *,
    variance: Variance,
    generator: Generator,
    slope: Slope | None = None,
) -> Tensor:
    """Walk from noise to data by ancestral steps: the shape of `x`, S calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit.
        variance: of the steps; `beta_tilde` suits few steps, as `beta` leaves much noise behind then.
        generator: source of the noise, on the device of `x`.
        slope: of what is climbed besides, S - 1 calls; None is nothing.
    """
    steps, variances = levels.steps, levels.steps.variance(variance)
    noisy, data, std, of_slope = (a.tolist() for a in (steps.noisy, steps.data, variances.sqrt(), variances))
    *before, last = times(levels, x)
    for step, t in enumerate(before):
        mean = noisy[step] * x + data[step] * denoise(x, t)
        if slope is not None:
            mean = mean + of_slope[step] * slope(x, t)
        x = mean + std[step] * noise_like(x, generator)
    return denoise(x, last)


def ddpm_learned(
    denoise: SharingDenoiser,
    x: Tensor,
    levels: NoiseLevels,
    *,
    generator: Generator,
    slope: Slope | None = None,
) -> Tensor:
    """As `ddpm`, with the variances that the network has learned: the shape of `x`, S calls of `denoise`.

    Args:
        denoise: estimates the data and the shares of the variances.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit; shares keep their meaning where times are skipped.
        generator: source of the noise, on the device of `x`.
        slope: as of `ddpm`.
    """
    steps = levels.steps
    noisy, data = steps.noisy.tolist(), steps.data.tolist()
    bounds = torch.stack([steps.beta.log(), steps.beta_tilde.log()]).to(x)  # the last step's is not used
    *before, last = times(levels, x)
    for step, t in enumerate(before):
        x_0, share = denoise(x, t)
        log_variance = learned_log_variance(share, bounds[0, step], bounds[1, step])
        mean = noisy[step] * x + data[step] * x_0
        if slope is not None:
            mean = mean + log_variance.exp() * slope(x, t)
        x = mean + torch.exp(0.5 * log_variance) * noise_like(x, generator)
    return denoise(x, last)[0]
