"""95 % intervals of estimates from their standard errors."""

from __future__ import annotations

import math

#: Two-sided 95 % quantile of the normal law.
Z95 = 1.959963984540054


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
