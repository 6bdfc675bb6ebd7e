"""P-values of several tests at once."""

from __future__ import annotations

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values (K,) that keep the chance of any false alarm: reject where they are below the level.

        p~_(i) = max_{j <= i} min(1, (K - j + 1) p_(j))

    (Holm 1979, Scandinavian Journal of Statistics 6(2), Sec. 3.)

    Args:
        p_values: (K,), in any order, each in 0 .. 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values (K,) that keep the expected share of false alarms among all alarms below the level.

        p~_(i) = min_{j >= i} min(1, K p_(j) / j)

    Valid for independent tests and for those that depend positively on each other (Benjamini and Hochberg 1995,
    JRSS B 57(1), Sec. 3.1; Benjamini and Yekutieli 2001, Theorem 1.2).

    Args:
        p_values: (K,), in any order, each in 0 .. 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * len(p) / np.arange(1, len(p) + 1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return adjusted
