"""Words for counts."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "cell"), counted(1200, "cell")
        ('1 cell', '1,200 cells')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
