"""Warm-up: call until the readings are steady, and say so when they never are.

The first call is read on its own, as it loads and tunes kernels, compiles networks and captures graphs. The rest are
read in windows. Warm-up ends when `warmup_calls` calls were made, `warmup_seconds` have passed and the medians of two
windows in a row differ by less than `steady_change`; or, unstable, after `max_warmup_seconds`.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from genbench.core.bench import Effort
from genbench.timing.clock import Clock, read

_READINGS_PER_BLOCK = 10  # a reading of quick calls lasts a tenth of a block: long enough that reading costs nothing


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """What it took until the readings were steady."""

    calls: int
    """All calls, the first included."""
    first_call_seconds: float
    seconds: float
    """After the first call."""
    stable: bool
    """False: the readings still changed when warm-up had to end."""
    seconds_per_call: float
    """Median of the last window."""


def warm_up(call: Callable[[], object], clock: Clock, *, effort: Effort) -> WarmUp:
    """Call until two windows in a row agree.

    A window is half of `warmup_calls` readings, so that two of them are the least that warm-up takes. A reading is one
    call, or as many quick ones as fill a tenth of a block. The limit counts from the end of the first call: a network
    that takes minutes to compile still gets its warm-up.
    """
    first_call_seconds = _seconds(call, clock, calls=1)
    calls, window, readings = 1, max(1, effort.warmup_calls // 2), list[float]()
    length = 1
    started = read(clock)
    while True:
        taken = _seconds(call, clock, calls=length)
        calls += length
        readings.append(taken / length)
        seconds = read(clock) - started
        enough = calls >= effort.warmup_calls and seconds >= effort.warmup_seconds
        stable = enough and _steady(readings, window, effort.steady_change)
        if stable or seconds >= effort.max_warmup_seconds:
            return WarmUp(calls, first_call_seconds, seconds, stable, statistics.median(readings[-window:]))
        if len(readings) % window == 0:
            length = max(length, _calls_per_reading(readings[-window:], effort))


def _seconds(call: Callable[[], object], clock: Clock, *, calls: int) -> float:
    before = read(clock)
    for _ in range(calls):
        call()
    return read(clock) - before


def _steady(readings: Sequence[float], window: int, change: float) -> bool:
    """Whether the readings end with two whole windows whose medians differ by less than `change`."""
    if len(readings) % window or len(readings) < 2 * window:
        return False
    before = statistics.median(readings[-2 * window : -window])
    after = statistics.median(readings[-window:])
    return abs(after - before) < change * before


def _calls_per_reading(readings: Sequence[float], effort: Effort) -> int:
    """Calls that fill a tenth of a block."""
    seconds_per_call = max(statistics.median(readings), 1e-9)
    return max(1, round(effort.block_seconds / _READINGS_PER_BLOCK / seconds_per_call))
