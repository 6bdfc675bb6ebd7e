"""Mann-Whitney test in the form of a z-score, with the standard error of that score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class RankTest:
    """Do the values of `x` tend to be larger than those of `y`?"""

    z: float
    """Standardised U of x: standard normal where both have one law, negative where x is smaller."""
    stderr: float
    """Standard error of z under the laws at hand, about 1 where they are one."""


def rank_test(x: np.ndarray, y: np.ndarray) -> RankTest:
    """Mann-Whitney U of x (n,) over y (m,), standardised under the null without correction for ties.

        z = (U - nm/2 + 1/2) / sqrt(nm (n + m + 1) / 12)

    The continuity correction of one half is that of Meehan et al. 2020's code. The standard error
    is DeLong's (DeLong, DeLong and Clarke-Pearson 1988, Eq. 2): the spread of the placements of each
    value among the others.
    """
    n, m = len(x), len(y)
    both = stats.rankdata(np.concatenate([x, y]))
    above = both[:n] - stats.rankdata(x)  # values of y below each x, ties half
    below = both[n:] - stats.rankdata(y)  # values of x below each y
    spread = (n * float(above.var(ddof=1)) if n > 1 else 0.0) + (m * float(below.var(ddof=1)) if m > 1 else 0.0)
    scale = math.sqrt(n * m * (n + m + 1) / 12.0)
    u = float(above.sum())
    return RankTest((u - 0.5 * n * m + 0.5) / scale, math.sqrt(spread) / scale)
