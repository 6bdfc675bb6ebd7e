"""Sinkhorn divergence between low-dimensional samples and held-out points: entropic transport without its bias.

    OT_eps(a, b) = min_pi sum pi_ij |x_i - y_j|^2 + eps KL(pi || a (x) b)
    S_eps(a, b)  = OT_eps(a, b) - OT_eps(a, a) / 2 - OT_eps(b, b) / 2

(Feydy et al. 2019, arXiv:1810.08278, Eq. 3), >= 0 and 0 for equal sets; the squared 2-Wasserstein distance as eps falls
to 0. Solved by POT (Flamary et al. 2021). The metric states eps as a share of the mean squared distance between
reference points, so that it does not depend on the units of the data; the score is in squared units.

A potential of a against b less that of a against itself is the first variation of `S_eps`, which gives the standard
error (Goldfeld et al. 2022, arXiv:2207.08683). The value is biased upwards for few points.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import ot
from scipy.special import logsumexp

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Positive, Several, Whole
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.metrics._vectors import Array, checked_points, found_vectors, subset
from genbench.prob.intervals import Estimate, normal_interval

_OWNER = "a Sinkhorn divergence"

TOLERANCE = 1e-6
"""Of the marginals, in POT's stopping rule, which errs in the value by its product with epsilon; of potentials over
epsilon, for a set against itself."""

MAX_STEPS = 2_000
"""Iterations; some hundreds are usual."""

UNSETTLED = 1e-3
"""Of epsilon: what as many iterations again would add to the value before the epsilon is called too small."""

WARM_STEPS = 20
"""Iterations at each larger epsilon that lead up to the one asked for: enough to settle how far masses travel."""

SAFE_EXPONENT = 600.0
"""Largest cost over epsilon whose exponential fits double precision; beyond it, work in logarithms, far slower."""


def sinkhorn_divergence(x: Array, y: Array, *, epsilon: float) -> Estimate:
    """Debiased entropic transport cost between two sets with squared Euclidean cost, >= 0, in squared units.

    Memory and time grow as N M: a few thousand points on a side are what it is for.

    Args:
        x: (N, D) float, samples.
        y: (M, D) float, reference points.
        epsilon: weight of the relative entropy, in squared units, above 0.

    Returns:
        The estimate; its error is the delta method over both sets. Where the laws are equal that error shrinks
        faster than the bias, and the interval need not reach 0.

    Raises:
        ValueError: fewer than 2 points on a side, unequal widths, points that are not finite, an epsilon that is not
            positive, or one so small that the iteration does not converge.
    """
    first, second = checked_points(x, y, owner=_OWNER)
    if not epsilon > 0.0:
        raise ValueError(f"epsilon is {epsilon}, expected a number above 0")
    across = _potentials(first, second, epsilon)
    on_first = across[0] - _own_potential(first, epsilon)
    on_second = across[1] - _own_potential(second, epsilon)
    value = max(0.0, float(on_first.mean() + on_second.mean()))
    stderr = float(np.sqrt(on_first.var(ddof=1) / len(first) + on_second.var(ddof=1) / len(second)))
    how = "delta method over both sets; small-sample bias not removed"
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0), how)


@register_metric("sinkhorn_divergence")
@dataclass(frozen=True)
class SinkhornDivergence(Metric):
    """Debiased entropic transport cost of samples to held-out points, with squared Euclidean cost."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.VECTORS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("sinkhorn", "lower"),)
    source: ClassVar[str] = "Feydy et al. 2019, arXiv:1810.08278, Eq. 3"

    epsilon_share: Positive = 0.05
    """Epsilon over the mean squared distance between two reference points. No paper settles it; 0.05 tells modes apart
    and converges in about a second for a thousand points."""
    max_points: Several = 1000
    """Points used on each side: of larger sets, a random subset."""
    seed: Whole = 0
    """Of the subsets."""

    def __post_init__(self) -> None:
        if not self.epsilon_share > 0.0 or self.max_points < 2:
            raise ValueError(
                f"epsilon_share and max_points are {self.epsilon_share} and {self.max_points}, expected above 0 and "
                "at least 2"
            )

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: as the function says, or reference points that are all one.
        """
        found = found_vectors(evidence.vectors, owner=_OWNER)
        points, reference = checked_points(found.samples, found.reference, owner=_OWNER)
        epsilon = self.epsilon_share * 2.0 * float(reference.var(0, ddof=1).sum())
        if not epsilon > 0.0:
            raise ValueError(f"{_OWNER} needs reference points that differ, found {len(reference)} equal ones")
        rng = np.random.default_rng(self.seed)
        y, x = (subset(part, self.max_points, rng=rng) for part in (reference, points))
        score = scored(
            "sinkhorn",
            sinkhorn_divergence(x, y, epsilon=epsilon),
            better="lower",
            num_samples=len(x),
            num_reference=len(y),
            protocol={
                "epsilon": float(f"{epsilon:.6g}"),
                "epsilon_share": self.epsilon_share,
                "cost": "squared Euclidean",
                "num_samples": len(x),
                "num_reference": len(y),
                "seed": self.seed,
            },
        )
        return (score,)


def _own_potential(x: np.ndarray, epsilon: float) -> np.ndarray:
    """The potential of a set against itself, (N,): the mean of both sides of the fixed point converges in a few steps.

    (Knight, Ruiz and Ucar 2014; Feydy et al. 2019.) Alternating steps would take thousands for an outlier.
    """
    scaled = -ot.dist(x, x) / epsilon - np.log(len(x))
    potential = np.zeros(len(x))  # over epsilon
    for _ in range(MAX_STEPS):
        step = 0.5 * (-logsumexp(scaled + potential, axis=1) - potential)
        potential = potential + step
        if np.abs(step).max() < TOLERANCE:
            return potential * epsilon
    raise ValueError(_unsettled(epsilon, MAX_STEPS))


def _potentials(x: np.ndarray, y: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Dual potentials f (N,) and g (M,) whose means add up to `OT_eps`, by way of ever smaller epsilons."""
    cost = ot.dist(x, y)
    f, g = np.zeros(len(x)), np.zeros(len(y))
    level = max(epsilon, float(cost.max()))
    while level > epsilon:
        f, g, _ = _solved(cost, level, (f, g), WARM_STEPS)
        level = max(epsilon, level / 4.0)
    f, g, off = _solved(cost, epsilon, (f, g), MAX_STEPS)
    if not off * MAX_STEPS < UNSETTLED:
        raise ValueError(_unsettled(epsilon, MAX_STEPS))
    return f, g


def _solved(
    cost: np.ndarray, epsilon: float, start: tuple[np.ndarray, np.ndarray], steps: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Potentials after at most `steps` iterations, and the divergence of the marginal that is not met yet.

    The last is what one more iteration would add to the dual value, over epsilon; 0 where it is within the tolerance.
    """
    a, b = (np.full(num, 1.0 / num) for num in cost.shape)
    scaled = (start[0] / epsilon + np.log(a), start[1] / epsilon + np.log(b))
    methods = ("sinkhorn", "sinkhorn_log") if float(cost.max()) / epsilon < SAFE_EXPONENT else ("sinkhorn_log",)
    for method in methods:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of numbers too large outside logarithms, which are looked at below
            settings = {"numItermax": steps, "stopThr": TOLERANCE, "warn": False, "log": True, "warmstart": scaled}
            plan, log = ot.sinkhorn(a, b, cost, epsilon, method=method, **settings)
            log_u, log_v = (log["log_u"], log["log_v"]) if "log_u" in log else (np.log(log["u"]), np.log(log["v"]))
            met = plan.sum(0)
            off = float((b * np.log(b / met) - b + met).sum()) if np.linalg.norm(met - b) > TOLERANCE else 0.0
        if np.isfinite(log_u).all() and np.isfinite(log_v).all() and np.isfinite(off):
            return epsilon * (log_u - np.log(a)), epsilon * (log_v - np.log(b)), off
    raise ValueError(_unsettled(epsilon, steps))


def _unsettled(epsilon: float, steps: int) -> str:
    return f"{_OWNER} with epsilon {epsilon:.3g} has not converged after {steps} steps; a larger one converges sooner"
