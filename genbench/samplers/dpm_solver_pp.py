"""DPM-Solver++ of second order in two steps, 2M (Lu et al. 2022, arXiv:2211.01095, Algorithm 2).

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t, the probability flow from t to s is, exactly,

x_s = sigma_s / sigma_t x_t + alpha_s times the integral of e^(lambda - lambda_s) x_0_hat over lambda_t .. lambda_s

in which x_0_hat is continued along the straight line through the estimates at this level and at the one before:
x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^(-h)) D,  D = x_0_hat + h / (2 h') (x_0_hat - x_0_hat'), primes of the step
before. One call of the network a step, an error of order two. The first step has no step before it, and the last one
leads to the data, where h is infinite: both are of first order, which is an implicit step without noise
(`samplers/ddim.py`, eta = 0), and the last returns x_0_hat itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers._protocol import Denoiser, times


def dpm_solver_pp(denoise: Denoiser, x: Tensor, levels: NoiseLevels) -> Tensor:
    """Walk from noise to data without noise: the shape of `x`, S calls of `denoise`.

    Args:
        denoise: estimates the data behind noised data.
        x: (B, ...) float, noised to the first level.
        levels: noise levels to visit; even in log(alpha / sigma) suits it best.
    """
    kept = levels.sigma[1:] / levels.sigma[:-1]
    data = levels.alpha[1:] - kept * levels.alpha[:-1]  # alpha_s (1 - e^-h)
    factors = zip(times(levels, x), kept.tolist(), data.tolist(), _continuation(levels).tolist(), strict=True)
    before = torch.zeros_like(x)
    for t, of_noisy, of_data, beyond in factors:
        guess = denoise(x, t)
        ahead = guess if beyond == 0.0 else guess + beyond * (guess - before)
        x, before = of_noisy * x + of_data * ahead, guess
    return x


def _continuation(levels: NoiseLevels) -> Tensor:
    """Factor h / (2 h') of each step; 0 in the first and in the last, which are of first order: (S,) float64."""
    log_snr = (levels.alpha[:-1] / levels.sigma[:-1]).log()
    h = log_snr.diff()  # (S - 1,) of all steps but the last
    beyond = torch.zeros_like(log_snr)
    beyond[1:-1] = 0.5 * h[1:] / h[:-1]
    return beyond
