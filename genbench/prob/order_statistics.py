"""Median of a sample with an interval that assumes no law."""

from __future__ import annotations

import math

import numpy as np

from genbench.prob.intervals import Z95, Estimate


def median_estimate(values: np.ndarray, *, how: str, effective: float | None = None) -> Estimate:
    """Median of values (N,), between the order statistics that hold the true median 95 times in 100.

    The number of values below the true median is binomial, so the ranks N/2 -+ 1.96 sqrt(N)/2 bound
    it (normal approximation; Conover 1999, Sec. 3.2). The standard error is the interval's length
    over 2 x 1.96.

    Args:
        values: (N,), N > 0.
        how: of the estimate.
        effective: number of independent values, where that is less than N; None: N.
    """
    ranked = np.sort(np.asarray(values, dtype=np.float64))
    num = len(ranked)
    half = 0.5 * Z95 * num / math.sqrt(effective if effective is not None else num)
    low = float(ranked[max(0, math.floor(0.5 * num - half) - 1)])
    high = float(ranked[min(num - 1, math.ceil(0.5 * num + half))])
    return Estimate(float(np.median(ranked)), (high - low) / (2.0 * Z95), (low, high), how)
