"""How far one side lies from another: an estimate, its interval by Student's t, and the chance of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Shift:
    """The mean of the second side less that of the first, with its uncertainty."""

    estimate: float
    low: float
    """Lower end of the two-sided interval at `level`."""
    high: float
    p: float
    """Two-sided, of no shift at all."""
    stderr: float
    degrees: float
    """Of freedom; infinite where the standard error is known."""
    level: float = 0.95

    def p_above(self, bound: float) -> float:
        """One-sided p-value of `the true shift is at most bound`."""
        if self.stderr == 0.0:
            return 0.0 if self.estimate > bound else 1.0
        return float(stats.t.sf((self.estimate - bound) / self.stderr, self.degrees))

    def p_beyond(self, tolerance: float) -> float:
        """Two-sided p-value of `the true shift lies within -tolerance .. tolerance`.

        It is at most 1 - level exactly where the interval lies outside of the tolerance.
        """
        below = Shift(-self.estimate, -self.high, -self.low, self.p, self.stderr, self.degrees, self.level)
        return min(1.0, 2.0 * min(self.p_above(tolerance), below.p_above(tolerance)))


def shift(estimate: float, stderr: float, degrees: float, *, level: float = 0.95) -> Shift:
    """The shift with the interval estimate -+ t_{(1 + level) / 2}(degrees) stderr."""
    if stderr == 0.0:
        return Shift(estimate, estimate, estimate, 1.0 if estimate == 0.0 else 0.0, stderr, degrees, level)
    half = float(stats.t.ppf(0.5 + 0.5 * level, degrees)) * stderr
    p = 2.0 * float(stats.t.sf(abs(estimate) / stderr, degrees))
    return Shift(estimate, estimate - half, estimate + half, p, stderr, degrees, level)


def paired_shift(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Shift:
    """Mean of second - first over K >= 2 pairs, with the t-interval of their spread (K - 1 degrees of freedom)."""
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"two or more pairs are needed, found {len(first)} and {len(second)} values")
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    stderr = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return shift(float(differences.mean()), stderr, len(differences) - 1, level=level)


def unpaired_shift(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Shift:
    """Mean of second less mean of first by Welch's t (Welch 1947, Biometrika 34): two or more values on each side."""
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"two or more values are needed on each side, found {len(first)} and {len(second)}")
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    u, v = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    squares = u**2 / (len(a) - 1) + v**2 / (len(b) - 1)
    degrees = (u + v) ** 2 / squares if squares > 0.0 else math.inf
    return shift(float(b.mean() - a.mean()), math.sqrt(u + v), degrees, level=level)
