"""Lower bound of a log-likelihood from a Gaussian posterior over continuous codes whose prior is N(0, I).

    log p(x) >= E log 1/K sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x),    z_k ~ q(z|x) = N(mu, sigma^2)

K = 1 is the evidence lower bound, and more draws only tighten it (Burda et al. 2016, arXiv:1509.00519, Eq. 8 and
Theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from genbench.prob import gaussian
from genbench.prob.likelihood import importance_weighted


def log_weights(z: Tensor, mu: Tensor, log_sigma: Tensor, *, log_prob_given: Callable[[Tensor], Tensor]) -> Tensor:
    """Log w_k of K draws for each of B examples, decoded together: (K, B), with gradients.

    Args:
        z: (K, B, D), drawn from the posteriors.
        mu: (B, D).
        log_sigma: (B, D).
        log_prob_given: codes (K B, D), of which row i belongs to example i mod B, to log p(x|z), (K B,).
    """
    log_ratio = gaussian.standard_log_prob(z) - gaussian.log_prob(z, mu, log_sigma)
    return log_prob_given(z.flatten(0, 1)).view(len(z), -1) + log_ratio.sum(-1)


def draws(mu: Tensor, log_sigma: Tensor, *, num_draws: int, generator: Generator | None = None) -> Tensor:
    """K draws mu + sigma eps from each posterior: (K, B, D), with gradients; None takes the global stream."""
    shape = (num_draws, *mu.shape)
    return gaussian.reparameterised(mu.expand(shape), log_sigma.expand(shape), generator=generator)


def importance_weighted_bound(
    mu: Tensor,
    log_sigma: Tensor,
    *,
    log_prob_given: Callable[[Tensor], Tensor],
    num_draws: int,
    generator: Generator,
    draws_at_once: int = 1,
) -> Tensor:
    """The bound of each of B examples: (B,) float64, nats.

    Args:
        mu: (B, D).
        log_sigma: (B, D).
        log_prob_given: as `log_weights`; with one draw at once, codes (B, D) to log p(x|z) of the examples, (B,).
        num_draws: K, at least 1.
        generator: of the draws.
        draws_at_once: draws decoded together. Memory grows with it and not with K, for which only a number for each
            draw and example is kept. The bound is the same whatever it is, but not the noise.

    Raises:
        ValueError: no draw, or none at once.
    """
    if num_draws < 1 or draws_at_once < 1:
        raise ValueError(f"the bound takes {num_draws} draws, {draws_at_once} at once, expected at least 1 of each")
    log_w = []
    for done in range(0, num_draws, draws_at_once):
        z = draws(mu, log_sigma, num_draws=min(draws_at_once, num_draws - done), generator=generator)
        log_w.append(log_weights(z, mu, log_sigma, log_prob_given=log_prob_given))
    return importance_weighted(torch.cat(log_w))


def bound_estimator(num_draws: int) -> str:
    """Name of the bound with K draws, for the protocol of a score."""
    if num_draws == 1:
        return "evidence lower bound, 1 draw"
    return f"importance-weighted bound, {num_draws} draws"
