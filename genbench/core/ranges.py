"""Ranges of settings: what a number may be, said by its type.

A setting is declared `num_codes: Count = 128` or `clip_norm: Positive | None = 1.0`. Plans read these names off source
files, and the process that builds a model reads the types themselves: both refuse a value outside in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Finite numbers between two ends: `0.0 in Range(0)`, and never NaN or infinity."""

    low: float = -math.inf
    high: float = math.inf
    includes_low: bool = True
    includes_high: bool = True

    def __contains__(self, value: float) -> bool:
        """Whether a number is finite and lies inside."""
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= self.high if self.includes_high else value < self.high
        return above and below and -math.inf < value < math.inf

    @property
    def limits(self) -> str:
        """Both ends in words: `at least 1`, `above 0`, `from 0 to 1`; empty where there are none."""
        has_low, has_high = math.isfinite(self.low), math.isfinite(self.high)
        if has_low and has_high and self.includes_low:
            return f"from {self.low:g} to {'' if self.includes_high else 'below '}{self.high:g}"
        low = [f"{'at least' if self.includes_low else 'above'} {self.low:g}"] if has_low else []
        high = [f"{'at most' if self.includes_high else 'below'} {self.high:g}"] if has_high else []
        return " and ".join(low + high)

    def words(self, noun: str) -> str:
        """What is expected, for a message: `a whole number of at least 1`, `a number above 0`."""
        limits = self.limits or "that is finite"
        return f"{noun} of {limits}" if limits.startswith("at ") else f"{noun} {limits}"


Count = Annotated[int, Range(1)]
"""How many there are of what cannot be missing: layers, channels, steps."""
Several = Annotated[int, Range(2)]
"""How many there are of what makes no sense alone: levels of noise, bins."""
Whole = Annotated[int, Range(0)]
"""How many, where none is a choice too: steps of warm-up, of a corrector; and seeds."""
Real = Annotated[float, Range()]
"""Any finite number: the mean of a logarithm."""
Positive = Annotated[float, Range(0, includes_low=False)]
"""A size or a scale: learning rates, tolerances, widths of noise, norms."""
NonNegative = Annotated[float, Range(0)]
"""A weight or an amount, which 0 switches off."""
Share = Annotated[float, Range(0, 1)]
"""From nothing to all."""
OpenShare = Annotated[float, Range(0, 1, includes_low=False, includes_high=False)]
"""A part of two, neither of which may be empty: the share of a phase of training."""
Fraction = Annotated[float, Range(0, 1, includes_high=False)]
"""What must not reach 1: the decay of an average, dropout."""
Margin = Annotated[float, Range(0, 0.5, includes_low=False, includes_high=False)]
"""What is left free at either end of [0, 1]."""

NAMED: Mapping[str, object] = {
    "Count": Count,
    "Several": Several,
    "Whole": Whole,
    "Real": Real,
    "Positive": Positive,
    "NonNegative": NonNegative,
    "Share": Share,
    "OpenShare": OpenShare,
    "Fraction": Fraction,
    "Margin": Margin,
}
"""The types above by the names that source files give them."""
