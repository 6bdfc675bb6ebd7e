"""Ancestral sampling (Ho, Jain and Abbeel 2020, arXiv:2006.11239, Algorithm 2).

x_s ~ N(noisy x_t + data x_0_hat, variance I): the posterior q(x_s | x_t, x_0) with the network's x_0_hat for x_0.
Levels that skip times are respaced as by Nichol and Dhariwal (2021, arXiv:2102.09672, Sec. 4). The last step
returns its mean, x_0_hat.
"""

from __future__ import annotations

from torch import Generator, Tensor

from genbench.prob.noise_schedule import NoiseLevels, Variance
from genbench.samplers._protocol import Denoiser, noise_like, times


def ddpm(denoise: Denoiser, x: Tensor, levels: NoiseLevels, *, variance: Variance, generator: Generator) -> Tensor:
    """Walk from noise to data by ancestral steps: the shape of `x`, S calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit.
        variance: of the steps; `beta_tilde` suits few steps, as `beta` leaves much noise behind then.
        generator: source of the noise, on the device of `x`.
    """
    steps = levels.steps
    noisy, data, std = steps.noisy.tolist(), steps.data.tolist(), steps.variance(variance).sqrt().tolist()
    *before, last = times(levels, x)
    for step, t in enumerate(before):
        x = noisy[step] * x + data[step] * denoise(x, t) + std[step] * noise_like(x, generator)
    return denoise(x, last)
