"""Diagonal Gaussians: log-densities, reparameterised draws and Kullback-Leibler divergences.

Every function works elementwise on `mu` and `log_sigma` that broadcast; the caller sums over the
dimensions of one example. Units are nats.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

LOG_SQRT_TAU = 0.5 * math.log(2.0 * math.pi)


def log_prob(x: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Elementwise log N(x; mu, sigma^2) = -log sigma - log sqrt(2 pi) - ((x - mu) / sigma)^2 / 2."""
    eps = (x - mu) * torch.exp(-log_sigma)
    return -0.5 * eps.square() - log_sigma - LOG_SQRT_TAU


def standard_log_prob(x: Tensor) -> Tensor:
    """Elementwise log N(x; 0, 1)."""
    return -0.5 * x.square() - LOG_SQRT_TAU


def kl(mu_q: Tensor, log_sigma_q: Tensor, mu_p: Tensor, log_sigma_p: Tensor) -> Tensor:
    """Elementwise KL(q || p) = log(sigma_p / sigma_q) + (sigma_q^2 + (mu_q - mu_p)^2) / (2 sigma_p^2) - 1/2."""
    log_ratio = log_sigma_q - log_sigma_p
    shift = (mu_q - mu_p) * torch.exp(-log_sigma_p)
    return 0.5 * (torch.expm1(2.0 * log_ratio) + shift.square()) - log_ratio


def kl_to_standard(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Elementwise KL(N(mu, sigma^2) || N(0, 1)) = (sigma^2 + mu^2 - 1) / 2 - log sigma."""
    return 0.5 * (torch.expm1(2.0 * log_sigma) + mu.square()) - log_sigma


def reparameterised(mu: Tensor, log_sigma: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Draw mu + sigma eps with gradients to both; None takes the global stream, for training."""
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + torch.exp(log_sigma) * eps
