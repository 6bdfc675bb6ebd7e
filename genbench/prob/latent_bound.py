"""Lower bound of a log-likelihood from a Gaussian posterior over continuous codes whose prior is N(0, I).

    log p(x) >= E log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),    z_k ~ q(z|x) = N(mu, sigma^2)

K = 1 is the evidence lower bound, and more draws only tighten it (Burda et al. 2016, arXiv:1509.00519, Eq. 8 and
Theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from genbench.prob import gaussian
from genbench.prob.likelihood import importance_weighted


def importance_weighted_bound(
    mu: Tensor,
    log_sigma: Tensor,
    *,
    log_prob_given: Callable[[Tensor], Tensor],
    num_draws: int,
    generator: Generator,
) -> Tensor:
    """The bound of each of B examples: (B,) float64, nats.

    Args:
        mu: (B, D).
        log_sigma: (B, D).
        log_prob_given: codes (B, D) to log p(x|z) of the examples, (B,).
        num_draws: K, at least 1.
        generator: of the draws.
    """
    log_weights = []
    for _ in range(num_draws):
        z = gaussian.reparameterised(mu, log_sigma, generator=generator)
        log_ratio = gaussian.standard_log_prob(z) - gaussian.log_prob(z, mu, log_sigma)
        log_weights.append(log_prob_given(z) + log_ratio.sum(1))
    return importance_weighted(torch.stack(log_weights))


def bound_estimator(num_draws: int) -> str:
    """Name of the bound with K draws, for the protocol of a score."""
    if num_draws == 1:
        return "evidence lower bound, 1 draw"
    return f"importance-weighted bound, {num_draws} draws"
