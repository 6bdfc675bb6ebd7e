"""95 % intervals of estimates from their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Two-sided 95 % quantile of the normal law.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty."""

    value: float
    stderr: float | None = None
    """Standard error; None where there is no spread to give."""
    ci95: tuple[float, float] | None = None
    """95 % interval; None where there is no spread to give."""
    how: str = "none"
    """How the uncertainty was made, for example `spread over samples`."""


def mean_estimate(values: np.ndarray, *, how: str, low: float = -math.inf, high: float = math.inf) -> Estimate:
    """Mean of independent values (N,), with its standard error and 95 % interval cut to what is possible."""
    kept = np.asarray(values, dtype=np.float64)
    value = float(kept.mean())
    if len(kept) < 2:
        return Estimate(value)
    stderr = float(kept.std(ddof=1)) / math.sqrt(len(kept))
    return Estimate(value, stderr, normal_interval(value, stderr, low=low, high=high), how)


def normal_interval(
    value: float, stderr: float, *, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """Value plus and minus 1.96 standard errors, cut to what is possible."""
    return max(low, value - Z95 * stderr), min(high, value + Z95 * stderr)


def share_interval(share: float, count: float) -> tuple[float, float]:
    """Wilson's score interval of a share seen in `count` independent trials; never empty at 0 or 1.

    (Wilson 1927; Brown, Cai and DasGupta 2001, Eq. 4.)
    """
    squeeze = 1.0 + Z95**2 / count
    middle = (share + Z95**2 / (2.0 * count)) / squeeze
    half = Z95 * math.sqrt(share * (1.0 - share) / count + Z95**2 / (4.0 * count**2)) / squeeze
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
