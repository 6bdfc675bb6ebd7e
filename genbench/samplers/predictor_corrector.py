"""Predictor-corrector sampling (Song et al. 2021, arXiv:2011.13456, Algorithms 2 to 5).

At every level some steps of Langevin dynamics bring the samples nearer to the law of that level, and then a predictor
takes them to the next. With alpha_ts = alpha_t / alpha_s and beta = sigma_t^2 - alpha_ts^2 sigma_s^2 of a step:

corrector  x <- x + h score + sqrt(2 h) eps,   h = 2 alpha_ts^2 (snr |eps| / |score|)^2
predictor  x_s = (2 - alpha_ts) x_t + beta score + sqrt(beta) eps   (reverse diffusion, Eq. 46)

For VE alpha_ts is 1 and these are Algorithms 2 and 4, for VP it is sqrt(1 - beta_i) and they are Algorithms 3 and 5;
other Gaussian paths fit too. Norms are means over the batch, as in the paper, so that samples depend on their
neighbours. As in the authors' code the corrector works at the first level too, before any step, and the last level is
left by its denoised estimate.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers._protocol import Denoiser, noise_like, times

Predictor = Literal["reverse_diffusion", "none"]
"""How samples go from one level to the next; with `none` the corrector alone does all (Algorithms 4 and 5)."""


def predictor_corrector(
    denoise: Denoiser,
    x: Tensor,
    levels: NoiseLevels,
    *,
    predictor: Predictor = "reverse_diffusion",
    corrector_steps: int,
    snr: float,
    generator: Generator,
) -> Tensor:
    """Walk from noise to data, correcting at every level: the shape of `x`, (M + 1) S calls of `denoise`.

    Without a predictor there are M S + 1 calls.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit.
        predictor: how the next level is reached.
        corrector_steps: M; 0 leaves the predictor alone.
        snr: ratio of the norms of signal and noise in a step of the corrector.
        generator: source of the noise, on the device of `x`.

    Raises:
        ValueError: neither predictor nor corrector, or a ratio that is not positive.
    """
    if corrector_steps < 0 or snr <= 0.0 or (predictor == "none" and corrector_steps == 0):
        raise ValueError(
            f"some predictor or corrector and a positive ratio are needed, found predictor `{predictor}`, "
            f"{corrector_steps} steps of the corrector, ratio {snr}"
        )
    beta = levels.steps.beta.tolist()
    shrink = (levels.alpha[:-1] / levels.alpha[1:]).tolist()
    alpha, variance = levels.alpha.tolist(), levels.sigma.square().tolist()
    visited = times(levels, x)
    for i, t in enumerate(visited):
        for _ in range(corrector_steps):
            score = (alpha[i] * denoise(x, t) - x) / variance[i]
            x = _corrected(x, score, noise_like(x, generator), snr=snr, shrink=shrink[i])
        if predictor == "reverse_diffusion" and i + 1 < len(visited):
            score = (alpha[i] * denoise(x, t) - x) / variance[i]
            x = (2.0 - shrink[i]) * x + beta[i] * score + beta[i] ** 0.5 * noise_like(x, generator)
    return denoise(x, visited[-1])


def _corrected(x: Tensor, score: Tensor, noise: Tensor, *, snr: float, shrink: float) -> Tensor:
    """One step of Langevin dynamics (Algorithms 4 and 5, inner loop): the shape of `x`."""
    step = 2.0 * (snr * shrink * _mean_norm(noise) / _mean_norm(score)).square()
    return x + step * score + (2.0 * step).sqrt() * noise


def _mean_norm(x: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean norms of its examples: a scalar."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.mean()
