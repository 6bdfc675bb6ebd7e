"""Total correlation of codes: how far the dimensions of a code are from independent, estimated in three ways.

    TC(z) = KL(q(z) || prod_d q(z_d)),    q(z) = E_x q(z|x)  the aggregate posterior

It is the middle one of the parts of the mean divergence of an autoencoder (Chen et al. 2018, arXiv:1802.04942, Eq. 2):

    E_x KL(q(z|x) || p(z))  =  I(x; z)  +  TC(z)  +  sum_d KL(q(z_d) || p(z_d))

the information that a code holds about which example it is of, the total correlation, and a divergence for each
dimension. Two estimators of log q(z) and log q(z_d) come from that paper: from a batch of M examples out of N,

    weighted    q(z) ~ 1/(N M) sum_m q(z|x_m)                                    Eq. 3
    stratified  q(z) ~ 1/N q(z|x) + (N - 1)/(N M') sum_(m: x_m not x) q(z|x_m)   appendix, with M' = M - 1

Stratification is unbiased for the density, because it knows that z was drawn for x, one of the N. Its expected
logarithm, and with it all parts, still errs where a batch is too small to hold the neighbours of z. Weighting gives a
density lower by about a factor of N: its log q(z) lies log N too low, its TC (D - 1) log N too high. The shift is
constant, so gradients are those of 1/M sum_m q(z|x_m).

The third needs no density: a discriminator tells codes from codes whose dimensions have been permuted over the
batch, and TC is the mean of its logit log D/(1 - D) over codes (Kim and Mnih 2018, arXiv:1802.05983, Eq. 3).

Legend: `B` draws, `M` examples, `D` dimensions of a code, `N` examples in all. Units are nats.

**Departures**: the paper's stratified weights single out one of the other examples, by its place in the batch, for
the weight (N - M')/(N M') and give the rest 1/M'; the weights here are their mean over all places, which has the
same expectation and less spread.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from genbench.prob import gaussian


class Aggregate(NamedTuple):
    """Log-densities of codes under the aggregate posterior."""

    joint: Tensor
    """(B,), log q(z)."""
    marginals: Tensor
    """(B, D), log q(z_d)."""

    def total_correlation(self) -> Tensor:
        """Log q(z) - sum_d log q(z_d): (B,), total correlation in the mean."""
        return self.joint - self.marginals.sum(1)


class Decomposition(NamedTuple):
    """Parts of log q(z|x) - log p(z), (B,) each; their sum is exact whatever the estimator."""

    index_code_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


def pairwise_log_prob(z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Log q(z_b,d | x_m) of each code under each posterior: (B, M, D).

    Args:
        z: (B, D).
        mu: (M, D).
        log_sigma: (M, D).
    """
    return gaussian.log_prob(z.unsqueeze(1), mu, log_sigma)


def weighted_aggregate(log_q: Tensor, *, dataset_size: int) -> Aggregate:
    """Minibatch-weighted sampling.

    Args:
        log_q: (B, M, D), `pairwise_log_prob`.
        dataset_size: N; shifts every log-density by -log N.
    """
    shift = math.log(log_q.shape[1]) + math.log(dataset_size)
    return Aggregate(log_q.sum(2).logsumexp(1) - shift, log_q.logsumexp(1) - shift)


def stratified_aggregate(log_q: Tensor, *, dataset_size: int) -> Aggregate:
    """Minibatch-stratified sampling.

    Args:
        log_q: (M, M, D), `pairwise_log_prob` of one draw for each example of a batch, in order.
        dataset_size: N, at least M.

    Raises:
        ValueError: draws and examples differ in number, fewer than two, or more than N of them.
    """
    num_draws, num_examples, _ = log_q.shape
    if num_draws != num_examples or not 2 <= num_examples <= dataset_size:
        raise ValueError(
            f"stratification needs one draw for each of 2 .. {dataset_size} examples (the dataset size), "
            f"found {num_draws} draws and {num_examples} examples"
        )
    others = (dataset_size - 1) / (dataset_size * (num_examples - 1))
    log_weights = torch.full_like(log_q[..., 0], math.log(others)).fill_diagonal_(-math.log(dataset_size))
    joint = (log_weights + log_q.sum(2)).logsumexp(1)
    return Aggregate(joint, (log_weights.unsqueeze(2) + log_q).logsumexp(1))


def decompose(z: Tensor, mu: Tensor, log_sigma: Tensor, *, aggregate: Aggregate) -> Decomposition:
    """Parts of log q(z|x) - log N(z; 0, I) at one draw for each example; their mean is the divergence's.

    Args:
        z: (B, D), drawn from N(mu, sigma^2).
        mu: (B, D).
        log_sigma: (B, D).
        aggregate: log-densities of `z`.
    """
    conditional = gaussian.log_prob(z, mu, log_sigma).sum(1)
    return Decomposition(
        conditional - aggregate.joint,
        aggregate.total_correlation(),
        (aggregate.marginals - gaussian.standard_log_prob(z)).sum(1),
    )


def permuted(z: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Codes (B, D) each of whose dimensions is permuted over the batch on its own: draws from prod_d q(z_d).

    Kim and Mnih 2018, Algorithm 1. None takes the global stream, for training.
    """
    order = torch.rand(z.shape, generator=generator, device=z.device).argsort(0)
    return z.gather(0, order)


def discrimination_loss(logits: Tensor, logits_of_permuted: Tensor) -> Tensor:
    """-1/2 E_q(z) log D - 1/2 E_prod log(1 - D), from logits log D/(1 - D): a scalar, log 2 for a blind discriminator.

    Kim and Mnih 2018, Algorithm 2. At its least the logit is log q(z) / prod_d q(z_d), whose mean is the total
    correlation.
    """
    return 0.5 * (F.softplus(-logits).mean() + F.softplus(logits_of_permuted).mean())
