"""Numbers as people read them: three significant figures, no NaN, no float noise."""

from __future__ import annotations

import math

SIGNIFICANT = 3
MISSING = "–"  # noqa: RUF001  an en dash, so that an absent number is never read as a minus sign


def significant(value: float) -> str:
    """Three significant figures: `41.2`, `0.00317`, `12,300`, `1.23e-5`.

    Raises:
        ValueError: the value is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"a table holds finite numbers, found {value}")
    if value == 0:
        return "0"
    exponent = _exponent(value)
    if exponent < -3 or exponent > 5:
        mantissa, _, power = f"{value:.{SIGNIFICANT - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}"
    if exponent >= SIGNIFICANT:
        return f"{round(value, SIGNIFICANT - 1 - exponent):,.0f}"
    return f"{value:.{SIGNIFICANT - 1 - exponent}f}"


def like(number: float, value: str) -> str:
    """A number with the decimals of the printed value beside it: an end of its interval.

    A printed 0 has no decimals to go by, and what is not 0 is never shown as such: one figure where the decimals would.
    """
    if "e" in value or "," in value or value == "0":
        return significant(number)
    shown = f"{number:.{len(value.partition('.')[2])}f}"
    return shown if number == 0 or float(shown) != 0 else f"{number:.1g}"


def beside(spread: float, value: str) -> str:
    """A spread with the decimals of the value it follows, or one figure where those would show 0."""
    return f"{spread:.1g}" if value == "0" else like(spread, value)


def count(number: float) -> str:
    """A count in three significant figures: `950`, `50k`, `1.23M`."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # what rounds to 1.00 of a size is written in it
            return f"{number / size:.3g}{suffix}"
    return f"{number:.0f}"


def _exponent(value: float) -> int:
    """Power of ten of the leading digit after rounding to three figures: 9.999 counts as 10.0."""
    return int(f"{value:.{SIGNIFICANT - 1}e}".partition("e")[2])
