"""Annealed importance sampling (Neal 2001, doi 10.1023/A:1008923215028): from a law that is known to one that is not.

    E_beta = (1 - beta) E_base + beta E_target,    0 = beta_0 < beta_1 < ... < beta_T = 1
    log w  = -sum_t (beta_t - beta_{t-1}) (E_target - E_base)(x_{t-1}),    x_t from moves that keep exp(-E_{beta_t})

for x_0 drawn from the base. The mean of w is Z_target / Z_base without bias, whatever the moves: the log of a mean of
w is at most log Z_target - log Z_base in the mean (Jensen), and with probability 1 - 1/c at most log c above it
(Markov). The other way round, from draws of the target to the base, it bounds from above (Grosse et al. 2015,
arXiv:1511.02543). Moves are Metropolis-adjusted Langevin steps, one network evaluation each.

Without their weights chains are draws of the target up to how well they kept up. They reach modes far apart, which
chains at beta = 1 do not, but share themselves among them as where the path parted these, more evenly than the target;
the weights mend it. `annealed` tunes the step at each beta on the chains themselves, and its steps serve
`annealed_importance`, where they must not be tuned on the chains that are weighed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from genbench.samplers.mala import retuned
from genbench.samplers.metropolis import Energy, evaluate, langevin_move, with_gradients

POWER = 4.0
"""Of the path, most of whose steps so lie near 0, where a narrow target changes the law fastest."""


class Annealed(NamedTuple):
    """Chains at the end of the path."""

    x: Tensor
    """(N, ...), detached."""
    step_sizes: Tensor
    """(T,), Langevin step at each beta after the first."""
    acceptance: Tensor
    """(T,), share of proposals accepted there."""


class Weighed(NamedTuple):
    """Chains at the end of the path, with their weights."""

    x: Tensor
    """(N, ...), detached."""
    log_weights: Tensor
    """(N,) float64."""
    acceptance: Tensor
    """(T,), share of proposals accepted at each beta after the first."""


def path(num_steps: int, *, hold: int = 0) -> tuple[float, ...]:
    """Values of beta from 0 to 1, `num_steps` steps between them, the last repeated `hold` times more.

    Example:
        >>> path(2, hold=1)
        (0.0, 0.0625, 1.0, 1.0)

    Raises:
        ValueError: no step.
    """
    if num_steps < 1:
        raise ValueError(f"a path has at least 1 step, found {num_steps}")
    return tuple((t / num_steps) ** POWER for t in range(num_steps + 1)) + (1.0,) * hold


def annealed(
    base: Energy,
    target: Energy,
    x: Tensor,
    *,
    betas: Sequence[float],
    first_step: float | Tensor,
    moves: int = 1,
    generator: Generator | None,
) -> Annealed:
    """Take chains along the path, tuning the step as they go; T * moves + 1 evaluations of each energy.

    Nothing is read back from the device on the way.

    Args:
        base: energy of the law that `x` comes from.
        target: energy of the law wanted.
        x: (N, ...) float; left as it is.
        betas: T + 1 values from 0 to 1.
        first_step: Langevin step to begin with, above 0.
        moves: at each beta.
        generator: on the device of `x`; None is the global stream.
    """
    with with_gradients():
        energies = (base, target)
        here = evaluate(energies, x.clone())
        step = torch.as_tensor(first_step, device=x.device, dtype=x.dtype).clone()
        steps, shares = [], []
        for beta in betas[1:]:
            share = torch.zeros((), device=x.device, dtype=x.dtype)
            for _ in range(moves):
                here, moved = langevin_move(energies, here, (1.0 - beta, beta), step, generator=generator)
                step = step * retuned(moved)
                share = share + moved.to(x.dtype).mean() / moves
            steps.append(step)
            shares.append(share)
    return Annealed(here.x, torch.stack(steps), torch.stack(shares))


def annealed_importance(
    base: Energy,
    target: Energy,
    x: Tensor,
    *,
    betas: Sequence[float],
    step_sizes: Tensor,
    moves: int = 1,
    generator: Generator | None,
) -> Weighed:
    """Take chains along the path and weigh them; T * moves + 1 evaluations of each energy.

    Nothing is read back from the device on the way.

    Args:
        base: energy of the law that `x` is an exact draw of.
        target: energy of the other law.
        x: (N, ...) float; left as it is.
        betas: T + 1 values from 0 to 1.
        step_sizes: (T,) Langevin steps, which must not depend on these chains.
        moves: at each beta.
        generator: on the device of `x`; None is the global stream.

    Raises:
        ValueError: steps and path differ in length.
    """
    if len(step_sizes) != len(betas) - 1:
        raise ValueError(f"a path of {len(betas)} values has a step size less, found {len(step_sizes)}")
    with with_gradients():
        energies = (base, target)
        here = evaluate(energies, x.clone())
        log_weights = torch.zeros(len(x), device=x.device, dtype=torch.float64)
        shares = []
        for before, beta, step in zip(betas, betas[1:], step_sizes.unbind(), strict=False):
            log_weights = log_weights - (beta - before) * (here.energies[1] - here.energies[0]).double()
            share = torch.zeros((), device=x.device, dtype=x.dtype)
            for _ in range(moves):
                here, moved = langevin_move(energies, here, (1.0 - beta, beta), step, generator=generator)
                share = share + moved.to(x.dtype).mean() / moves
            shares.append(share)
    return Weighed(here.x, log_weights, torch.stack(shares))


def first_step_of(std: Tensor, num_dims: int) -> Tensor:
    """Langevin step () that suits a Gaussian of this standard deviation () in every direction.

    h = l^2 std^2 / (2 D^(1/3)) with l = 1.65, where chains mix fastest in many dimensions (Roberts and Rosenthal 1998).
    """
    return std.square() * (1.65**2 / (2.0 * math.cbrt(num_dims)))
