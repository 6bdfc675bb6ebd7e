"""Euler-Maruyama steps of the reverse-time diffusion (Song et al. 2021, arXiv:2011.13456, Eq. 6; Anderson 1982).

dx = (f x - g^2 score) dt + g dw, walked backwards:  x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) eps

f and g are frozen over a step: the law of the samples is off by an amount of order one in the steps' length. The last
level is left by its denoised estimate, x_0_hat, without which its noise would stay in the samples.
"""

from __future__ import annotations

from torch import Generator, Tensor

from genbench.prob.diffusion_sde import DiffusionSDE
from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers._protocol import Denoiser, noise_like, times


def euler_maruyama(
    denoise: Denoiser, x: Tensor, levels: NoiseLevels, *, sde: DiffusionSDE, generator: Generator
) -> Tensor:
    """Walk from noise to data by steps of the reverse diffusion: the shape of `x`, S calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit, of this diffusion.
        sde: what noises the data.
        generator: source of the noise, on the device of `x`.
    """
    t, alpha, sigma = levels.t[:-1], levels.alpha[:-2], levels.sigma[:-2]  # (S - 1,) where the steps start
    length = t - levels.t[1:]
    added = sde.squared_diffusion(t) * length
    data = added * alpha / sigma.square()  # of the score, (alpha x_0_hat - x) / sigma^2
    noisy = 1.0 - sde.drift(t) * length - added / sigma.square()
    *before, last = times(levels, x)
    factors = zip(before, noisy.tolist(), data.tolist(), added.sqrt().tolist(), strict=True)
    for at, of_noisy, of_data, std in factors:
        x = of_noisy * x + of_data * denoise(x, at) + std * noise_like(x, generator)
    return denoise(x, last)
