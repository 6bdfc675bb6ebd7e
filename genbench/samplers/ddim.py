"""Denoising diffusion implicit steps (Song, Meng and Ermon 2020, arXiv:2010.02502, Eq. 12 and 16).

x_s = alpha_s x_0_hat + sqrt(sigma_s^2 - tau^2) eps_hat + tau eps,  eps_hat = (x_t - alpha_t x_0_hat) / sigma_t

tau = eta sqrt(beta_tilde), which is Eq. 16 on a variance preserving path. eta = 0 adds no noise and solves the
probability flow ODE; eta = 1 is ancestral sampling with the variance beta_tilde.
"""

from __future__ import annotations

from torch import Generator, Tensor

from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers._protocol import Denoiser, noise_like, times


def ddim(denoise: Denoiser, x: Tensor, levels: NoiseLevels, *, eta: float, generator: Generator) -> Tensor:
    """Walk from noise to data by implicit steps: the shape of `x`, S calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit.
        eta: share of the ancestral noise that is added at each step, in 0 .. 1; 0 leaves the generator alone.
        generator: source of the noise, on the device of `x`.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is a share in 0 .. 1, found {eta}")
    tau = eta * levels.steps.beta_tilde.sqrt()
    kept = (levels.sigma[1:].square() - tau.square()).clamp(min=0.0).sqrt() / levels.sigma[
        :-1
    ]  # factor of sigma_t eps_hat
    data = levels.alpha[1:] - kept * levels.alpha[:-1]
    factors = zip(times(levels, x), kept.tolist(), data.tolist(), tau.tolist(), strict=True)
    for t, of_noisy, of_data, std in factors:
        x = of_noisy * x + of_data * denoise(x, t)
        if std > 0.0:
            x = x + std * noise_like(x, generator)
    return x
