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
