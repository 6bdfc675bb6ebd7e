"""What chains with an energy share: points with their slopes, and moves that are proposed and then accepted or not.

A chain may follow a weighted sum of energies, E = sum_k w_k E_k, as an annealed one does. The energies of a point are
kept apart, so that other weights at the same point cost no evaluation.

Legend: `h` step size of Langevin dynamics, `delta` of the leapfrog, `p` momentum, `K` energies, `B` chains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

Energy = Callable[[Tensor], Tensor]
"""(B, ...) to (B,); it treats examples independently. No move ends where it is infinite."""


class Point(NamedTuple):
    """Where chains are; nothing carries a graph."""

    x: Tensor
    """(B, ...)."""
    energies: Tensor
    """(K, B)."""
    slopes: Tensor
    """(K, B, ...), gradients of the energies."""


class Chains(NamedTuple):
    """Where chains came to, and how often their proposals were accepted."""

    x: Tensor
    """(B, ...), detached."""
    acceptance: Tensor
    """(B,), share of the proposals of each chain, 0 .. 1."""


@contextlib.contextmanager
def with_gradients() -> Iterator[None]:
    """Gradients can be asked for inside, whatever mode the caller is in."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield


def evaluate(energies: Sequence[Energy], x: Tensor) -> Point:
    """One evaluation of each energy at `x` (B, ...), with its gradient; parameters gather none."""
    x = x.detach().requires_grad_()
    values = [energy(x) for energy in energies]
    slopes = [torch.autograd.grad(value.sum(), x)[0] for value in values]
    return Point(x.detach(), torch.stack(values).detach(), torch.stack(slopes))


def langevin_move(
    energies: Sequence[Energy],
    here: Point,
    weights: Sequence[float],
    step_size: float | Tensor,
    *,
    generator: Generator | None,
) -> tuple[Point, Tensor]:
    """One Metropolis-adjusted Langevin step: the point after it, and whether each chain moved, (B,) bool.

    The proposal y = x - h grad E(x) + sqrt(2 h) eps has q(y | x) = N(y; x - h grad E(x), 2 h I), and is accepted with
    probability min(1, exp(E(x) - E(y)) q(x | y) / q(y | x)). A proposal whose energy is no number is refused.

    Args:
        energies: K of them.
        here: under these energies.
        weights: K numbers.
        step_size: h, above 0; a tensor has no dimension.
        generator: on the device of the chains; None is the global stream.
    """
    noise = _normal(here.x, generator)
    y = here.x - step_size * weighted(here.slopes, weights) + (2.0 * step_size) ** 0.5 * noise
    there = evaluate(energies, y)
    back = here.x - y + step_size * weighted(there.slopes, weights)
    log_ratio = weighted(here.energies - there.energies, weights)
    log_ratio = log_ratio + 0.5 * squared_norm(noise) - squared_norm(back) / (4.0 * step_size)
    return _settled(here, there, log_ratio, generator)


def hamiltonian_move(
    energies: Sequence[Energy],
    here: Point,
    weights: Sequence[float],
    step_size: float | Tensor,
    *,
    leapfrog_steps: int,
    generator: Generator | None,
) -> tuple[Point, Tensor]:
    """One trajectory of `leapfrog_steps` from a new momentum, arguments and results as those of `langevin_move`.

    H(x, p) = E(x) + |p|^2 / 2 is kept but for the error of the leapfrog, exp(-change of H) the odds of acceptance.
    """
    p_first = _normal(here.x, generator)
    p = p_first - 0.5 * step_size * weighted(here.slopes, weights)
    there = here
    for k in range(leapfrog_steps):
        there = evaluate(energies, there.x + step_size * p)
        share = 1.0 if k < leapfrog_steps - 1 else 0.5  # two half steps between positions are one
        p = p - share * step_size * weighted(there.slopes, weights)
    log_ratio = weighted(here.energies - there.energies, weights)
    log_ratio = log_ratio + 0.5 * (squared_norm(p_first) - squared_norm(p))
    return _settled(here, there, log_ratio, generator)


def weighted(parts: Tensor, weights: Sequence[float]) -> Tensor:
    """sum_k w_k parts_k of (K, ...): the shape of one part; the weights stay on the host."""
    total = weights[0] * parts[0]
    for k in range(1, len(weights)):
        total = total + weights[k] * parts[k]
    return total


def squared_norm(x: Tensor) -> Tensor:
    """|x|^2 of each example: (B, ...) to (B,)."""
    return x.flatten(1).square().sum(1)


def _settled(here: Point, there: Point, log_ratio: Tensor, generator: Generator | None) -> tuple[Point, Tensor]:
    """Each chain at its proposal with probability min(1, exp(log_ratio)), else where it was."""
    u = torch.rand(log_ratio.shape, generator=generator, device=log_ratio.device, dtype=log_ratio.dtype)
    moved = u.log() < log_ratio  # False where the ratio is no number
    rows = moved.view(-1, *[1] * (here.x.ndim - 1))
    x = torch.where(rows, there.x, here.x)
    energies = torch.where(moved, there.energies, here.energies)
    return Point(x, energies, torch.where(rows, there.slopes, here.slopes)), moved


def _normal(x: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
