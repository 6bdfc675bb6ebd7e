"""Penalties on the slope of a critic.

Between data and samples, toward one: Gulrajani et al. 2017 (1704.00028), Eq. 3, a soft form of
|f(x) - f(y)| <= |x - y|. At data (R1) or at samples (R2), toward zero: Mescheder et al. 2018 (1801.04406), Sec. 4.1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]
"""(B, ...) to (B,); it must treat the examples of a batch independently."""


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of (|grad f(x)| - 1)^2 at random points between pairs: a scalar to be minimised with its gradient.

    x = real + u (fake - real) with one u ~ U[0, 1] for each pair, drawn from the global stream.

    Args:
        critic: f.
        real: (B, ...) float; no gradient reaches it.
        fake: the same shape; no gradient reaches it.
    """
    return (_slopes_between(critic, real, fake) - 1).square().mean()


def one_sided_gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of max(0, |grad f(x)| - 1)^2, which lets slopes below one be; otherwise as `gradient_penalty` (Sec. 4)."""
    return (_slopes_between(critic, real, fake) - 1).clamp(min=0).square().mean()


def with_squared_slopes(critic: Critic, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores f(x) and squared norms |grad f(x)|^2, both (B,) with their graphs: a zero-centred penalty is their mean.

    One pass serves both, so a loss that needs the scores of its batch has the slopes for no more than their gradient.

    Args:
        critic: f.
        x: (B, ...) float; no gradient reaches it.
    """
    x = x.detach().requires_grad_()
    scores = critic(x)
    (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return scores, slope.flatten(1).square().sum(1)


def _slopes_between(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """|grad f(x)| at one random point between each pair, with its graph: (B,)."""
    u = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    x = torch.lerp(real.detach(), fake.detach(), u).requires_grad_()
    # The sum over the batch gives every example its own gradient; create_graph lets the penalty train the critic.
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm: Tensor = slope.flatten(1).norm(dim=1)
    return norm
