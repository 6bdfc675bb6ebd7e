"""Words for counts and durations."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "cell"), counted(1200, "cell")
        ('1 cell', '1,200 cells')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def lasted(seconds: float) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> lasted(7.04), lasted(150.0), lasted(7500.0)
        ('7.0 s', '2 min 30 s', '2 h 05 min')
    """
    if seconds < 100.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
