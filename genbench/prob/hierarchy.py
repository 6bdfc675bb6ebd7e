"""Lower bounds of a log-likelihood from codes in several layers, each with a Gaussian posterior and a Gaussian prior.

The layers z_1 .. z_L are written in any order; what the prior and the posterior of a layer depend on is the caller's:

    log p(x) >= E_q [log p(x|z) - sum_l KL(q(z_l|...) || p(z_l|...))]              `evidence_bound`
    log p(x) >= E_q log 1/K sum_k p(x|z_k) prod_l p(z_l|...) / q(z_l|...)          `log_weight` of each draw

The first needs a posterior that is drawn in the order in which the prior is (from the top down): only then are all that
the prior and posterior of a layer depend on known before the layer itself is drawn, and the divergence is that of two
given Gaussians. The second holds in any order (Burda et al., 2015, 1509.00519, Eq. 8, averages its weights).

Units are nats.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from genbench.prob import gaussian


class Layer(NamedTuple):
    """Codes of one layer and the two Gaussians they lie between; shapes (B, ...) that broadcast."""

    z: Tensor
    """A draw from the posterior."""
    mu_q: Tensor
    log_sigma_q: Tensor
    mu_p: Tensor
    log_sigma_p: Tensor


def divergence(layer: Layer) -> Tensor:
    """KL(q || p) of one layer, given all that was drawn before it: (B,), at least 0."""
    of_dims = gaussian.kl(layer.mu_q, layer.log_sigma_q, layer.mu_p, layer.log_sigma_p)
    return of_dims.expand_as(layer.z).flatten(1).sum(1)


def log_ratio(layer: Layer) -> Tensor:
    """Log p(z) - log q(z) of the draw of one layer: (B,); minus the divergence in the mean over draws."""
    log_p = gaussian.log_prob(layer.z, layer.mu_p, layer.log_sigma_p)
    return (log_p - gaussian.log_prob(layer.z, layer.mu_q, layer.log_sigma_q)).flatten(1).sum(1)


def evidence_bound(log_prob_x: Tensor, layers: Iterable[Layer]) -> Tensor:
    """The evidence lower bound from one draw of all layers, from the top down: (B,).

    Args:
        log_prob_x: log p(x|z) of the draw, (B,).
        layers: all of them.
    """
    return log_prob_x - sum_of(map(divergence, layers), like=log_prob_x)


def log_weight(log_prob_x: Tensor, layers: Iterable[Layer]) -> Tensor:
    """Log p(x, z) / q(z|x) of one draw of all layers, in any order: (B,); for `likelihood.importance_weighted`."""
    return log_prob_x + sum_of(map(log_ratio, layers), like=log_prob_x)


def precision_weighted(mu_a: Tensor, log_sigma_a: Tensor, mu_b: Tensor, log_sigma_b: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of the Gaussian proportional to the product of two others, elementwise: mu and log_sigma.

        1/sigma^2 = 1/sigma_a^2 + 1/sigma_b^2,    mu = sigma^2 (mu_a/sigma_a^2 + mu_b/sigma_b^2)

    A Gaussian of infinite sigma says nothing: the product is then the other one.
    """
    share = torch.sigmoid(2.0 * (log_sigma_b - log_sigma_a))  # of the precision, the part that is a's
    log_sigma = -0.5 * torch.logaddexp(-2.0 * log_sigma_a, -2.0 * log_sigma_b)
    return mu_b + share * (mu_a - mu_b), log_sigma


def sum_of(parts: Iterable[Tensor], *, like: Tensor) -> Tensor:
    """Sum of any number of tensors of the shape of `like`."""
    total = torch.zeros_like(like)
    for part in parts:
        total = total + part
    return total
