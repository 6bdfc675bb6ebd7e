"""Optimal transport between two batches: which noise goes with which data, at the least squared distance.

    min_pi sum_ij pi_ij |x_i - y_j|^2    over pi with uniform marginals,

solved exactly, when pi is a permutation over B (Birkhoff 1946), or less the entropy that `epsilon` weighs (Cuturi 2013,
arXiv:1306.0895). Pairs of batches couple two laws without changing either (Fatras et al. 2021, arXiv:2101.01792), at a
cost between those of optimal transport and of independent pairs.

The work is done on the CPU: a batch on another device is waited for. SciPy's assignment of 256 pairs takes a few
milliseconds and grows as B^3; Sinkhorn's iterations are POT's (Flamary et al. 2021), imported when first needed.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

SAFE_EXPONENT = 600.0
"""Largest cost over epsilon whose exponential fits double precision; beyond it, work in logarithms, far slower."""
TOLERANCE = 1e-6
"""Of the marginals, in POT's stopping rule."""
MAX_STEPS = 5_000
"""Of Sinkhorn's iterations; some hundreds are usual. POT warns where they are too few."""
ROUNDING = 1e-12
"""Differences of costs, over the largest distance, that are none."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of two batches (B, ...) and (M, ...): (B, M) float64, 0 or above."""
    x, y = x.detach().flatten(1).double(), y.detach().flatten(1).double()
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2.0 * x @ y.T).clamp(min=0.0)


def exact_pairing(x: Tensor, y: Tensor) -> Tensor:
    """Row of `x` that goes with each row of `y`: a permutation (B,) int64, of the least total squared distance.

    Raises:
        ValueError: the batches differ in size.
    """
    if len(x) != len(y):
        raise ValueError(f"pairs need batches of one size, found {len(x)} and {len(y)}")
    _, partners = linear_sum_assignment(squared_distances(y, x).cpu().numpy())
    return torch.from_numpy(partners).to(x.device)


def entropic_plan(x: Tensor, y: Tensor, *, epsilon: float) -> Tensor:
    """Entropic transport plan pi of two batches, with uniform marginals: (B, M) float64, on the device of `x`.

    Args:
        x: (B, ...).
        y: (M, ...).
        epsilon: weight of the entropy, as a share of what pairs differ by: the standard deviation of squared distances
            whose rows and columns have had their means taken off, as these change no plan. Near 0 the plan is the
            optimal one, and takes long; as epsilon grows, pairs become independent.

    Raises:
        ValueError: epsilon is not above 0.
    """
    if epsilon <= 0.0:
        raise ValueError(f"the weight of the entropy is above 0, found {epsilon}")
    import ot  # seconds to import

    cost = squared_distances(x, y).cpu().numpy()
    scale = float(cost.max()) or 1.0
    cost = (cost - cost.mean(0) - cost.mean(1)[:, None] + cost.mean()) / scale
    cost -= cost.min()
    weight = epsilon * float(cost.std())
    if weight < ROUNDING:  # every plan costs the same
        return torch.full(cost.shape, 1.0 / cost.size, dtype=torch.float64, device=x.device)
    method = "sinkhorn" if float(cost.max()) < SAFE_EXPONENT * weight else "sinkhorn_log"
    rows, columns = (np.full(size, 1.0 / size) for size in cost.shape)
    plan = ot.sinkhorn(rows, columns, cost, weight, method=method, numItermax=MAX_STEPS, stopThr=TOLERANCE)
    return torch.from_numpy(plan).to(x.device)


def drawn_pairing(plan: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Row that goes with each column, drawn from pi_ij / sum_i pi_ij: (M,) int64.

    Every column is used once, rows with replacement: each pair by itself has the law `plan`.

    Args:
        plan: (B, M), 0 or above, with mass in every column.
        generator: on the device of `plan`; None draws from the global stream, as training does.
    """
    return torch.multinomial(plan.T, 1, generator=generator)[:, 0]
