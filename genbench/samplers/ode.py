"""Ordinary differential equations from noise to data and back, and the density that they carry along.

dx/dt = v(t, x) moves samples, and along its paths d log p(x_t) / dt = -div v(t, x_t), the instantaneous change of
variables (Chen et al. 2018, arXiv:1806.07366, Theorem 1). The divergence is exact, one backward pass for each
dimension, or Hutchinson's estimate eps^T J eps with E eps eps^T = I and one eps for the whole solve, so that the
equation stays deterministic (Grathwohl et al. 2018, arXiv:1810.01367, Sec. 3.1). Solvers are those of torchdiffeq.

The adaptive solver measures its error over the whole batch: an example's result moves within the tolerance with its
neighbours.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, cast

import torch
from torch import Generator, Tensor

Field = Callable[[Tensor, Tensor], Tensor]
"""v(t, x) of a scalar time and (B, ...): the shape of x."""
Divergence = Literal["exact", "hutchinson"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solver:
    """How an equation is solved."""

    method: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "dopri5"
    """The first four take `num_steps` even steps, the last chooses its own."""
    num_steps: int = 100
    rtol: float = 1e-5
    atol: float = 1e-5
    """Tolerances of the adaptive method."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.rtol <= 0 or self.atol <= 0:
            raise ValueError(f"a solver takes at least one step and positive tolerances, found {self}")

    @property
    def evaluations(self) -> int | None:
        """Calls of the field; None where the method chooses."""
        stages = {"euler": 1, "midpoint": 2, "heun2": 2, "rk4": 4}
        return stages[self.method] * self.num_steps if self.method in stages else None


def solve(field: Field, x: Tensor, *, start: float, end: float, solver: Solver) -> Tensor:
    """Where the paths through `x` at time `start` are at time `end`: the shape of `x`.

    Args:
        field: v.
        x: (B, ...) float.
        start: time of `x`.
        end: time of the result; may lie before `start`.
        solver: how.
    """
    return _integrate(lambda t, state: (field(t, state[0]),), (x,), start=start, end=end, solver=solver)[0]


def solve_with_log_density(
    field: Field,
    x: Tensor,
    *,
    start: float,
    end: float,
    solver: Solver,
    divergence: Divergence,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The end of the paths through `x`, and what log p gains along them: the shape of `x`, and (B,), nats.

    With z the end of the path, log p_start(x) = log p_end(z) - gain, and gain is minus the integral of div v.

    Args:
        field: v; differentiable in x.
        x: (B, ...) float.
        start: time of `x`.
        end: time of the result.
        solver: how.
        divergence: `exact` for low dimension, or `hutchinson`.
        generator: of Hutchinson's signs; not used by `exact`.
    """
    signs = _signs(x, generator) if divergence == "hutchinson" else None

    def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        velocity, div = with_divergence(field, t, state[0], signs)
        return velocity, -div

    gain = x.new_zeros(len(x))
    end_x, gained = _integrate(augmented, (x, gain), start=start, end=end, solver=solver)
    return end_x, gained


class Carried(NamedTuple):
    """What a solve for training brings, with gradients."""

    end: Tensor
    """The ends of the paths, of the shape of the starts."""
    gain: Tensor
    """What log p gains along them: (B,), nats."""
    kinetic: Tensor
    """The integral of |v|^2 along each path: (B,)."""
    jacobian: Tensor
    """The integral of the squared Frobenius norm of dv/dx, or of |signs^T dv/dx|^2, whose mean it is: (B,)."""


def solve_for_training(
    field: Field,
    x: Tensor,
    *,
    start: float,
    end: float,
    solver: Solver,
    divergence: Divergence,
    parameters: Iterable[Tensor],
    generator: Generator | None = None,
) -> Carried:
    """`solve_with_log_density` with gradients in `x` and the parameters of the field, and two costs of the paths.

    Even steps are differentiated themselves, in memory that grows with their number; the adaptive method has the
    gradients of the adjoint equation, solved backwards to the same tolerance (Chen et al. 2018, Sec. 2). The costs are
    those of Finlay et al. 2020, arXiv:2002.02798, Sec. 3; they come with the divergence for nothing.

    Args:
        field: v; twice differentiable.
        x: (B, ...) float.
        start: time of `x`.
        end: time of the result.
        solver: how.
        divergence: `exact` for low dimension, or `hutchinson`.
        parameters: of the field.
        generator: of Hutchinson's signs; None draws from the global stream.
    """
    signs = _signs(x, generator) if divergence == "hutchinson" else None

    def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        velocity, div, norm = _with_derivatives(field, t, state[0], signs)
        return velocity, -div, velocity.square().flatten(1).sum(1), norm

    nothing = x.new_zeros(len(x))
    through = tuple(parameter for parameter in parameters if parameter.requires_grad)
    state = (x, nothing, nothing, nothing)
    found = _integrate(augmented, state, start=start, end=end, solver=solver, through=through)
    sign = 1.0 if end > start else -1.0
    return Carried(found[0], found[1], sign * found[2], sign * found[3])


def _with_derivatives(field: Field, t: Tensor, x: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """v(t, x), its divergence and the squared norm of its Jacobian, or estimates by `signs`: (B,) each.

    They carry gradients where gradients are asked for.
    """
    wanted = torch.is_grad_enabled()
    with torch.inference_mode(mode=False), torch.enable_grad():
        x = x if wanted and x.requires_grad else x.detach().clone().requires_grad_()
        velocity = field(t, x)
        if signs is not None:
            (product,) = torch.autograd.grad(velocity, x, signs, create_graph=wanted)
            div, norm = (product * signs).flatten(1).sum(1), product.square().flatten(1).sum(1)
        else:
            flat = velocity.flatten(1)
            div, norm = x.new_zeros(len(x)), x.new_zeros(len(x))
            for i in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, i].sum(), x, create_graph=wanted, retain_graph=True)
                div, norm = div + row.flatten(1)[:, i], norm + row.square().flatten(1).sum(1)
    return (velocity, div, norm) if wanted else (velocity.detach(), div.detach(), norm.detach())


def with_divergence(field: Field, t: Tensor, x: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor]:
    """v(t, x) and its divergence, exact without `signs`, else signs^T J signs: the shape of `x`, and (B,).

    Nothing is differentiable afterwards.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        x = x.clone().detach().requires_grad_()
        velocity = field(t, x)
        flat = velocity.flatten(1)
        if signs is not None:
            (product,) = torch.autograd.grad((velocity * signs).sum(), x)
            div = (product * signs).flatten(1).sum(1)
        else:
            div = x.new_zeros(len(x))
            for i in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i + 1 < flat.shape[1])
                div = div + row.flatten(1)[:, i]
    return velocity.detach(), div.detach()


def _signs(x: Tensor, generator: Generator | None) -> Tensor:
    bits = torch.randint(0, 2, x.shape, generator=generator, device=x.device)
    return bits.to(x.dtype) * 2.0 - 1.0


def _integrate(
    derivative: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
    *,
    start: float,
    end: float,
    solver: Solver,
    through: tuple[Tensor, ...] = (),
) -> tuple[Tensor, ...]:
    """The state at `end`; gradients in the parameters `through` are found by the adjoint equation if it is adaptive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchdiffeq import odeint, odeint_adjoint  # a second to import
    times = torch.tensor([start, end], dtype=state[0].dtype, device=state[0].device)
    if solver.method == "dopri5":
        options: dict[str, object] = {"step_t": times[1:]}  # it lands on the end instead of stepping over it
    else:
        grid = torch.linspace(start, end, solver.num_steps + 1, dtype=torch.float64).to(times)
        grid[[0, -1]] = times  # to the last bit
        options = {"grid_constructor": lambda func, y0, t: grid}
    how = {"method": solver.method, "rtol": solver.rtol, "atol": solver.atol, "options": options}
    if through and solver.method == "dopri5":
        found = odeint_adjoint(derivative, state, times, **how, adjoint_params=through, adjoint_options={})
    else:
        found = odeint(derivative, state, times, **how)
    return tuple(cast("Tensor", of_times[-1]) for of_times in found)
