"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011, arXiv:1206.1901): proposals far away that are still accepted.

Each trajectory draws a momentum p ~ N(0, I) and follows Hamilton's equations of H(x, p) = E(x) + |p|^2 / 2 by the
leapfrog, which keeps volumes and can be run backwards; its end is accepted with probability
min(1, exp(H before - H after)). With one leapfrog step it is `mala` of step size h = step_size^2 / 2.

A trajectory that is half a period long goes to the other side, one of a whole period comes back to where it began:
step_size times leapfrog_steps should be near the widest direction's standard deviation, and below twice the narrowest
one's for each step. About 65 % accepted is best in many dimensions (Beskos et al. 2013, arXiv:1001.4460).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from genbench.samplers.metropolis import Chains, Energy, evaluate, hamiltonian_move, with_gradients


def hmc(
    energy: Energy,
    x: Tensor,
    *,
    num_steps: int,
    step_size: float,
    leapfrog_steps: int,
    generator: Generator | None,
) -> Chains:
    """Chains after `num_steps` trajectories from `x`, all side by side, with the share that each accepted.

    One gradient is taken at each leapfrog step and one at the start. Nothing is read back from the device on the way,
    and it works under `torch.no_grad` and inference mode.

    Args:
        energy: (B, ...) to (B,).
        x: (B, ...) float, starting points of finite energy; left as they are.
        num_steps: trajectories.
        step_size: of the leapfrog.
        leapfrog_steps: of each trajectory.
        generator: source of momenta and acceptance, on the device of `x`; None is the global stream.

    Raises:
        ValueError: no trajectory, no leapfrog step, or a size that is not above 0.
    """
    if num_steps < 1 or leapfrog_steps < 1 or not step_size > 0.0:
        raise ValueError(
            f"chains take at least 1 trajectory of at least 1 step of a size above 0, found {num_steps} of "
            f"{leapfrog_steps} of {step_size}"
        )
    with with_gradients():
        here = evaluate((energy,), x.clone())
        moves = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for _ in range(num_steps):
            here, moved = hamiltonian_move(
                (energy,), here, (1.0,), step_size, leapfrog_steps=leapfrog_steps, generator=generator
            )
            moves = moves + moved
    return Chains(here.x, moves / num_steps)
