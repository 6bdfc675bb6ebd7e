"""Annealed Langevin dynamics (Song and Ermon 2019, arXiv:1907.05600, Algorithm 1), with a denoising step at its end.

x <- x + a_i / 2 score(x, sigma_i) + sqrt(a_i) eps,   a_i = step_size sigma_i^2,   K times at each level

In the paper's terms step_size is epsilon / sigma_L^2. All levels so have the same ratio of signal to noise. For data
that are a Gaussian of variance v in the law of a level, steps without end give the variance
v / (1 - step_size sigma_i^2 / (4 v)) instead: an excess of order one in the step. The last level is left by its
denoised estimate (Jolicoeur-Martineau et al. 2020, arXiv:2009.05475), without which its noise stays in the samples.
"""

from __future__ import annotations

from torch import Generator, Tensor

from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers._protocol import Denoiser, noise_like, times


def annealed_langevin(
    denoise: Denoiser,
    x: Tensor,
    levels: NoiseLevels,
    *,
    steps_per_level: int,
    step_size: float,
    generator: Generator,
) -> Tensor:
    """Follow Langevin dynamics from level to level: the shape of `x`, K S + 1 calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, the starting point.
        levels: noise levels to visit.
        steps_per_level: K.
        step_size: of a step, as a share of the level's variance; below 4, where the dynamics stop to contract.
        generator: source of the noise, on the device of `x`.

    Raises:
        ValueError: no step, or a size outside 0 .. 4.
    """
    if steps_per_level < 1 or not 0.0 < step_size < 4.0:
        raise ValueError(
            f"a level takes at least 1 step of a size between 0 and 4, found {steps_per_level} steps of {step_size}"
        )
    half = 0.5 * step_size
    visited = times(levels, x)
    for t, alpha, sigma in zip(visited, levels.alpha.tolist(), levels.sigma.tolist(), strict=False):
        std = step_size**0.5 * sigma
        for _ in range(steps_per_level):  # sigma^2 score = alpha x_0_hat - x
            x = (1.0 - half) * x + half * alpha * denoise(x, t) + std * noise_like(x, generator)
    return denoise(x, visited[-1])
