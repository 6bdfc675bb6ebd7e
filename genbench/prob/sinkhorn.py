"""Entropic optimal transport between two clouds of points, and the Sinkhorn divergence, with gradients.

    OT_eps(a, b) = min_pi sum pi_ij C_ij + eps KL(pi || a (x) b)    over pi with the marginals a and b
                 = sum a_i f_i + sum b_j g_j                        at the potentials f, g that solve
    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),  g_j alike    pi_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)
    S_eps(a, b)  = OT_eps(a, b) - OT_eps(a, a) / 2 - OT_eps(b, b) / 2

(Cuturi 2013, arXiv:1306.0895; Genevay et al. 2018, arXiv:1706.00292; Feydy et al. 2019, arXiv:1810.08278, Eq. 3). It is
0 for equal laws and 0 or above for squared distances; as eps falls it becomes the squared 2-Wasserstein distance.

By the envelope theorem the gradient of OT_eps by the costs is the plan pi: the potentials are solved without
a graph, and no iteration is differentiated. Potentials of a law against itself are found by averaged steps, which take
a few tens; those of two laws by alternating steps that go beyond their aim (Thibault et al. 2017, arXiv:1711.01851),
after a descent from a large eps. Far beyond it the dual value could fall; `_beyond` stops before that, so that it rises
at every step. Between two looks, `CHECK` steps apart, the plan stands as it was at the first and steps scale its rows
and columns (Schmitzer 2016, arXiv:1610.06519); a look takes logarithms, and reads one number back from the device of
the costs, to see whether the potentials have settled.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Largest relative error of a marginal, below which the potentials have settled."""
CHECK = 20
"""Steps between two looks at that error."""
LEVELS = 12
"""Halvings of eps on the way down from the largest cost, with a step at each."""
OVERSHOOT = 0.8
"""How far a step goes beyond its aim, over the way to it."""
LARGEST_OVERSHOOT = 0.6
"""Of a potential that rises, in eps."""
LARGEST_SCALING = 30.0
"""Logarithm of what scales a row or a column between two looks: a float32 holds more than the product of two."""


class Potentials(NamedTuple):
    """Dual potentials of two clouds."""

    f: Tensor
    """(N,)."""
    g: Tensor
    """(M,)."""
    off: Tensor
    """(), largest relative error of a marginal before the last step."""


def squared_costs(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of two batches (N, ...) and (M, ...), with gradients: (N, M), 0 or above but for rounding."""
    x, y = x.flatten(1), y.flatten(1)
    middle = y.detach().mean(0)  # near which squares lose the fewest digits
    x, y = x - middle, y - middle
    return x.square().sum(1)[:, None] + y.square().sum(1) - 2.0 * x @ y.T


@torch.no_grad()
def potentials(
    cost: Tensor,
    *,
    epsilon: float | Tensor,
    log_a: Tensor | None = None,
    log_b: Tensor | None = None,
    max_steps: int = 2000,
    tolerance: float = TOLERANCE,
) -> Potentials:
    """Potentials of two laws by Sinkhorn's alternating steps; the marginal b of their plan is exact.

    Args:
        cost: (N, M).
        epsilon: above 0, in the units of the costs; a tensor has no dimension.
        log_a: (N,), logarithms of masses that sum to 1; None is 1 / N each.
        log_b: (M,), the same of the columns.
        max_steps: after which they are taken as they are.
        tolerance: of the marginals.
    """
    cost, eps = cost.detach(), torch.as_tensor(epsilon, dtype=cost.dtype, device=cost.device)
    log_a, log_b = _masses(cost, log_a, 0), _masses(cost, log_b, 1)
    f, g = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    for k in range(LEVELS):
        level = torch.maximum(eps, cost.max() * 0.5**k)
        f, g = (
            0.5 * (f + _transform(cost, g, log_b, level)),
            0.5 * (g + _transform(cost.T, f, log_a, level)),
        )
    off = cost.new_full((), math.inf)
    for start in range(0, max_steps, CHECK):
        plan = (f[:, None] + g - cost).div_(eps).exp_()
        scaling_f, scaling_g = torch.zeros_like(f), torch.zeros_like(g)
        for _ in range(min(CHECK, max_steps - start) - 1):
            scaling_f = _beyond(scaling_f, -(plan @ (scaling_g + log_b).exp()).log())
            scaling_g = _beyond(scaling_g, -((scaling_f + log_a).exp() @ plan).log())
        g = g + eps * scaling_g
        f = _transform(cost, g, log_b, eps)
        change = _transform(cost.T, f, log_a, eps) - g
        g, off = g + change, change.abs().max() / eps
        if bool(off < tolerance):
            break
    return Potentials(f, g, off)


@torch.no_grad()
def own_potential(
    cost: Tensor,
    *,
    epsilon: float | Tensor,
    log_a: Tensor | None = None,
    max_steps: int = 2000,
    tolerance: float = TOLERANCE,
) -> Potentials:
    """The potential of a law against itself, by averaged steps: f and g are the last two iterates, equal in the end.

    (Knight, Ruiz and Ucar 2014; Feydy et al. 2019.)

    Args:
        cost: (N, N), symmetric.
        epsilon: as of `potentials`.
        log_a: as of `potentials`.
        max_steps: as of `potentials`.
        tolerance: as of `potentials`.
    """
    cost, eps = cost.detach(), torch.as_tensor(epsilon, dtype=cost.dtype, device=cost.device)
    log_a = _masses(cost, log_a, 0)
    f, off = cost.new_zeros(len(cost)), cost.new_full((), math.inf)
    for start in range(0, max_steps, CHECK):
        plan = (f[:, None] + f - cost).div_(eps).exp_()
        scaling = torch.zeros_like(f)
        for _ in range(min(CHECK, max_steps - start) - 1):
            scaling = _held(0.5 * (scaling - (plan @ (scaling + log_a).exp()).log()))
        f = f + eps * scaling
        change = 0.5 * (_transform(cost, f, log_a, eps) - f)
        f, off = f + change, change.abs().max() / eps
        if bool(off < tolerance):
            break
    return Potentials(f, _transform(cost, f, log_a, eps), off)


def plan_of(
    found: Potentials,
    cost: Tensor,
    *,
    epsilon: float | Tensor,
    log_a: Tensor | None = None,
    log_b: Tensor | None = None,
) -> Tensor:
    """Transport plan pi of potentials: (N, M), 0 or above; arguments as those of `potentials`."""
    exponent = (found.f[:, None] + found.g - cost.detach()) / epsilon
    return (exponent + _masses(cost, log_a, 0)[:, None] + _masses(cost, log_b, 1)).exp()


def entropic_cost(
    cost: Tensor,
    *,
    epsilon: float | Tensor,
    log_a: Tensor | None = None,
    log_b: Tensor | None = None,
    max_steps: int = 2000,
) -> Tensor:
    """OT_eps of two laws: (), with the plan as its gradient; arguments as those of `potentials`."""
    found = potentials(cost, epsilon=epsilon, log_a=log_a, log_b=log_b, max_steps=max_steps)
    return _value(found, cost, epsilon, _masses(cost, log_a, 0), _masses(cost, log_b, 1))


def own_entropic_cost(
    cost: Tensor, *, epsilon: float | Tensor, log_a: Tensor | None = None, max_steps: int = 2000
) -> Tensor:
    """OT_eps of a law and itself: (), with the plan as its gradient; arguments as those of `own_potential`."""
    found = own_potential(cost, epsilon=epsilon, log_a=log_a, max_steps=max_steps)
    masses = _masses(cost, log_a, 0)
    return _value(found, cost, epsilon, masses, masses)


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float | Tensor,
    log_a: Tensor | None = None,
    log_b: Tensor | None = None,
    max_steps: int = 2000,
) -> Tensor:
    """S_eps between two clouds for squared Euclidean costs: (), with gradients to the points.

    Args:
        x: (N, ...) float.
        y: (M, ...) float.
        epsilon: above 0, in squared units.
        log_a: (N,), logarithms of the masses of `x`; None is 1 / N each.
        log_b: (M,), of those of `y`.
        max_steps: of each of the three transports.
    """
    across = entropic_cost(squared_costs(x, y), epsilon=epsilon, log_a=log_a, log_b=log_b, max_steps=max_steps)
    own_x = own_entropic_cost(squared_costs(x, x), epsilon=epsilon, log_a=log_a, max_steps=max_steps)
    own_y = own_entropic_cost(squared_costs(y, y), epsilon=epsilon, log_a=log_b, max_steps=max_steps)
    return across - 0.5 * (own_x + own_y)


def _value(found: Potentials, cost: Tensor, epsilon: float | Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """The dual value, to which a term is added that is 0 and has the plan as its gradient."""
    value = (log_a.exp() * found.f).sum() + (log_b.exp() * found.g).sum()
    plan = plan_of(found, cost, epsilon=epsilon, log_a=log_a, log_b=log_b)
    return value + (plan * (cost - cost.detach())).sum()


def _beyond(scaling: Tensor, aim: Tensor) -> Tensor:
    """A step from logarithms of scalings past those that would make their marginal exact.

    Of each the dual value is u - exp(u) and a constant, with u the way from `aim`. From u > 0 a step to -0.8 u raises
    it; from u < 0 it does as long as -u < 0.75, and a step to 0.6 does from farther off.
    """
    return _held(aim + (OVERSHOOT * (aim - scaling)).clamp_(max=LARGEST_OVERSHOOT))


def _held(scaling: Tensor) -> Tensor:
    return scaling.clamp_(-LARGEST_SCALING, LARGEST_SCALING)


def _transform(cost: Tensor, potential: Tensor, log_masses: Tensor, eps: Tensor) -> Tensor:
    """-eps log sum_j b_j exp((g_j - C_ij) / eps): (N,) from costs (N, M) and a potential (M,)."""
    return -eps * torch.logsumexp((potential - cost) / eps + log_masses, dim=1)


def _masses(cost: Tensor, given: Tensor | None, side: int) -> Tensor:
    """Log-masses of rows (side 0) or columns (side 1)."""
    if given is not None:
        return given.to(cost)
    return cost.new_full((cost.shape[side],), -math.log(cost.shape[side]))
