"""Noise of the numbers in a table: seeds merged, differences judged, tiers drawn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from genbench.core.record import Better, Rate, Score

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
SEEDS_FOR_SPREAD = 3  # below three seeds a standard deviation says more about luck than about spread
# Two-sided 95 % quantiles of Student's t for 2 .. 12 degrees of freedom; beyond that two terms
# of the expansion of Cornish and Fisher in 1/d are right to 0.1 %.
_T95 = (4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788)
P10_TO_P90 = 2.5631031310892007  # distance from the 10th to the 90th percentile, in standard deviations

Key = TypeVar("Key")


@dataclass(frozen=True)
class Estimate:
    """A number of one row, merged over its seeds."""

    value: float
    stderr: float | None
    """Standard error; None when nothing is known of the noise."""
    ci95: tuple[float, float] | None
    spread: float | None
    """Standard deviation over seeds, None below three of them."""
    beyond: bool = False
    """The number was not reached within its budget: it is larger than `value`."""


@dataclass(frozen=True)
class Place:
    """Where a row stands in a column."""

    tier: int
    best: bool
    """It leads the next row by more than the noise."""


def merge(values: Sequence[float], errors: Sequence[float | None]) -> Estimate:
    """Mean over seeds. Below three seeds the errors of the values themselves are pooled.

    From three seeds on, the standard error is the larger of that and the deviation between seeds,
    widened by Student's t so that 1.96 standard errors are a 95 % interval.
    """
    mean, n = statistics.fmean(values), len(values)
    known = [error for error in errors if error is not None]
    pooled = math.hypot(*known) / n if len(known) == n else None
    spread = statistics.stdev(values) if n >= SEEDS_FOR_SPREAD else None
    between = None if spread is None else _t95(n - 1) / Z95 * spread / math.sqrt(n)
    stderr = max((error for error in (pooled, between) if error is not None), default=None)
    ci95 = None if stderr is None else (mean - Z95 * stderr, mean + Z95 * stderr)
    return Estimate(mean, stderr, ci95, spread)


def merge_scores(scores: Sequence[Score]) -> Estimate:
    """One score over seeds; a single score keeps the interval that was measured for it."""
    merged = merge([score.value for score in scores], [score_error(score) for score in scores])
    if len(scores) == 1 and scores[0].ci95 is not None:
        return Estimate(merged.value, merged.stderr, scores[0].ci95, None)
    return merged


def merge_rates(rates: Sequence[Rate], *, scale: float = 1.0) -> Estimate:
    """Median rates over seeds, `scale` times.

    The error of one median is the deviation of its blocks, not divided by the root of their number:
    blocks of one process share their luck, so more of them do not make the median surer.
    """
    errors = [scale * (rate.p90 - rate.p10) / P10_TO_P90 if len(rate.raw) > 1 else None for rate in rates]
    return merge([scale * rate.median for rate in rates], errors)


def merge_times(times: Sequence[tuple[float | None, float]]) -> Estimate:
    """Median over seeds of times to a target, with its budget where that was missed.

    A miss counts as longer than every time that was reached. Of an even number of seeds it is the mean of the two in
    the middle, and a miss where either is one. No noise is given: the median of so few says little of it.

    Args:
        times: seconds or examples, None for a miss; and the budget.
    """
    ordered = sorted(times, key=lambda pair: math.inf if pair[0] is None else pair[0])
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    reached = [value for value, _ in middle if value is not None]
    if len(reached) < len(middle):
        missed = [budget for value, budget in ordered if value is None]
        return Estimate(min(missed), None, None, None, beyond=True)
    return Estimate(statistics.fmean(reached), None, None, None)


def score_error(score: Score) -> float | None:
    """Standard error of a score, from its 95 % interval where it states none itself."""
    if score.stderr is not None or score.ci95 is None:
        return score.stderr
    return (score.ci95[1] - score.ci95[0]) / (2 * Z95)


def distinguishable(a: Estimate, b: Estimate) -> bool:
    """Whether two numbers differ at 95 %; never so where the noise of one is unknown."""
    if a.stderr is None or b.stderr is None:
        return False
    return abs(a.value - b.value) > Z95 * math.hypot(a.stderr, b.stderr)


def best_first(value: float, better: Better | None) -> float:
    """Sort key that puts the best value first."""
    return -value if better == "higher" else value


def places(estimates: Mapping[Key, Estimate], better: Better) -> dict[Key, Place]:
    """Tiers of a column, best first; an estimate without noise has no place.

    A new tier starts where a value is distinguishable from the best of the current tier. `best` needs a
    runner-up, and a lead over it that is larger than the noise of both.
    """
    order = sorted(estimates, key=lambda key: best_first(estimates[key].value, better))
    runner_up = estimates[order[1]] if len(order) > 1 else None
    placed: dict[Key, Place] = {}
    head, tier = None, 0
    for key in (key for key in order if estimates[key].stderr is not None):
        if head is None or distinguishable(estimates[head], estimates[key]):
            head, tier = key, tier + 1
        leads = key == order[0] and runner_up is not None and distinguishable(estimates[key], runner_up)
        placed[key] = Place(tier, leads)
    return placed


def _t95(degrees: int) -> float:
    if degrees < 2 + len(_T95):
        return _T95[degrees - 2]
    first = (Z95**3 + Z95) / 4
    second = (5 * Z95**5 + 16 * Z95**3 + 3 * Z95) / 96
    return Z95 + first / degrees + second / degrees**2
