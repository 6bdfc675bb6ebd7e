"""Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996): Langevin steps that follow exp(-E) exactly.

    y = x - h grad E(x) + sqrt(2 h) eps,  accepted with probability min(1, exp(E(x) - E(y)) q(x | y) / q(y | x))

where q(y | x) is the density of the proposal. h is `step_size`, as in `langevin`, whose noise is sqrt(2 h); h / 2 is
often written in its place. The rule takes out the bias of the step size; what is left is how slowly chains mix.
About 57 % accepted is best where there are many dimensions (Roberts and Rosenthal 1998).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from genbench.samplers.metropolis import Chains, Energy, evaluate, langevin_move, with_gradients

BEST_ACCEPTANCE = 0.574
"""Of Langevin proposals, in many dimensions (Roberts and Rosenthal 1998, Theorem 2)."""
TUNING_RATE = 0.5
"""By how much the logarithm of a step moves for each unit that the acceptance is off: a step ten times too large
is mended in about eight moves, and chance moves that of 64 chains by 3 %."""


def mala(energy: Energy, x: Tensor, *, num_steps: int, step_size: float, generator: Generator | None) -> Chains:
    """Chains after `num_steps` steps from `x`, all side by side, with the share that each accepted.

    One gradient of the energy is taken at each step and one at the start, with respect to `x` alone. Nothing is read
    back from the device on the way, and it works under `torch.no_grad` and inference mode.

    Args:
        energy: (B, ...) to (B,); infinite where there is no density.
        x: (B, ...) float, starting points of finite energy; left as they are.
        num_steps: proposals.
        step_size: h.
        generator: source of the noise, on the device of `x`; None is the global stream.

    Raises:
        ValueError: no step, or a size that is not above 0.
    """
    if num_steps < 1 or not step_size > 0.0:
        raise ValueError(f"chains take at least 1 step of a size above 0, found {num_steps} of {step_size}")
    with with_gradients():
        here = evaluate((energy,), x.clone())
        moves = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for _ in range(num_steps):
            here, moved = langevin_move((energy,), here, (1.0,), step_size, generator=generator)
            moves = moves + moved
    return Chains(here.x, moves / num_steps)


def adaptive_mala(
    energy: Energy, x: Tensor, *, num_steps: int, step_size: Tensor, generator: Generator | None
) -> Chains:
    """As `mala`, with a step size that is moved after the chains towards the best acceptance.

    One call follows exp(-E) exactly; over calls, what the step size was tuned on is seen again by the chains.

    Args:
        energy: as of `mala`.
        x: as of `mala`.
        num_steps: at least 1.
        step_size: h, () float, changed in place.
        generator: as of `mala`.

    Raises:
        ValueError: no step.
    """
    if num_steps < 1:
        raise ValueError(f"chains take at least 1 step, found {num_steps}")
    with with_gradients():
        here = evaluate((energy,), x.clone())
        h = step_size.detach().clone()
        moves = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for _ in range(num_steps):
            here, moved = langevin_move((energy,), here, (1.0,), h, generator=generator)
            moves = moves + moved
        acceptance = moves / num_steps
        step_size.mul_(retuned(acceptance))
    return Chains(here.x, acceptance)


def retuned(accepted: Tensor) -> Tensor:
    """Factor () that brings a step size nearer the best acceptance, from shares or moves (B,)."""
    return torch.exp(TUNING_RATE * (accepted.float().mean() - BEST_ACCEPTANCE))
