"""Blocks: many calls between two synchronised reads of the clock.

A synchronisation after each call would hide how far the host runs ahead of the device, and would cost a good part of a
short call. So calls stand in blocks of at least `block_seconds`, and the clock is read at their edges only. Marks in
the device's queue, which cost the host a microsecond each and are looked at after the block, give the time of single
calls.

Whether the host keeps the device waiting cannot be seen in such marks, because a device that waits lets time pass
between them just as one that works. It is found in calls of their own: the device is held until the host has queued a
whole call, and then needs for it what the device alone needs. When blocks take over 5 % longer, the subject is *host
bound*. Two kinds of call cannot be queued ahead, and their waiting is seen in part only: those that wait for the device
themselves (`.item()`), and those of more kernels than the driver's queue has room for (about a thousand) in which the
host falls behind late.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise, repeat

from genbench.core.bench import Effort
from genbench.timing.clock import Clock, Mark, read
from genbench.timing.turns import Turn, at_once

_LARGEST_READING_SHARE = 0.001  # of a block that reading the clock may cost
_MARGIN = 1.1  # blocks are sized a tenth longer than they must be, so that no quick one is too short
_MOST_MARKS = 100  # in a block, so that they cost less than a thousandth of it
_HOST_BOUND_SHARE = 0.05
_HELD_CALLS = 5  # of calls shorter than a block; longer ones are held once
_LONGEST_HOLD_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Readings of steady calls."""

    seconds_per_call: tuple[float, ...]
    """One value for each block, in order."""
    calls_per_block: int
    device_seconds_per_call: tuple[float, ...] | None
    """From mark to mark on the device's clock, in order; a mark follows every call, or every few of very many. None on
    a device without a queue."""
    host_bound: bool
    """The host kept the device waiting for over 5 % of the time."""


def timed_blocks(
    call: Callable[[], object], clock: Clock, *, seconds_per_call: float, effort: Effort, turn: Turn = at_once
) -> Blocks:
    """Time a call that is warm, in at least `min_blocks` blocks and for at least `min_seconds`.

    Args:
        call: queues its work and returns; what it returns is dropped.
        clock: of the device that does the work.
        seconds_per_call: what a call takes, as warm-up found; only the first guess at the size of a block.
        effort: how long.
        turn: each block is one; so is finding its size, and whether the host keeps up.
    """
    with turn():
        calls = _calls_per_block(call, clock, seconds_per_call, effort)
        stretches = _stretches(calls, clock)
    blocks, on_device = list[float](), list[float]()
    total = 0.0
    while len(blocks) < effort.min_blocks or total < effort.min_seconds:
        with turn():
            seconds, marks = _block(call, clock, stretches)
        total += seconds
        blocks.append(seconds / calls)
        on_device += _between(marks, clock, stretches)
    wall_seconds = statistics.median(blocks)
    held_calls = _HELD_CALLS if wall_seconds < effort.block_seconds else 1
    bound = False
    if on_device:
        with turn():
            bound = _host_bound(call, clock, wall_seconds=wall_seconds, held_calls=held_calls)
    return Blocks(tuple(blocks), calls, tuple(on_device) or None, bound)


def _calls_per_block(call: Callable[[], object], clock: Clock, seconds_per_call: float, effort: Effort) -> int:
    """Calls in a block that is long enough, and in which reading the clock costs less than a thousandth.

    A guess of more than one call is tried, and raised until a block lasts as long as it should.
    """
    wanted = _MARGIN * max(effort.block_seconds, _reading_seconds(clock) / _LARGEST_READING_SHARE)
    calls = max(1, math.ceil(wanted / max(seconds_per_call, 1e-9)))
    while calls > 1:
        seconds, _ = _block(call, clock, [calls])
        if seconds >= wanted / _MARGIN:
            break
        calls = max(calls + 1, min(10 * calls, math.ceil(calls * wanted / max(seconds, 1e-9))))
    return calls


def _reading_seconds(clock: Clock) -> float:
    """What two reads of an idle device cost."""
    pairs = [(read(clock), read(clock)) for _ in range(20)]
    return 2 * statistics.median(after - before for before, after in pairs)


def _stretches(calls: int, clock: Clock) -> list[int]:
    """Calls between neighbouring marks of a block: one, a few of very many, or all where there is nothing to mark."""
    stride = calls if clock.mark() is None else math.ceil(calls / _MOST_MARKS)
    full, rest = divmod(calls, stride)
    return [stride] * full + [rest] * bool(rest)


def _block(call: Callable[[], object], clock: Clock, stretches: Sequence[int]) -> tuple[float, list[Mark | None]]:
    """Seconds of a block, and marks at its beginning and after each stretch of calls."""
    before = read(clock)
    marks = [clock.mark()]
    for length in stretches:
        for _ in repeat(None, length):
            call()
        marks.append(clock.mark())
    return read(clock) - before, marks


def _between(marks: Sequence[Mark | None], clock: Clock, stretches: Sequence[int]) -> list[float]:
    """Seconds per call between neighbouring marks."""
    return [
        clock.seconds_between(first, second) / length
        for (first, second), length in zip(pairwise(marks), stretches, strict=True)
        if first is not None and second is not None
    ]


def _host_bound(call: Callable[[], object], clock: Clock, *, wall_seconds: float, held_calls: int) -> bool:
    """Whether calls take over 5 % longer than the device needs for them when their work is queued beforehand."""
    alone = statistics.median(_held(call, clock, wall_seconds) for _ in range(held_calls))
    return abs(wall_seconds - alone) > _HOST_BOUND_SHARE * wall_seconds


def _held(call: Callable[[], object], clock: Clock, wall_seconds: float) -> float:
    """Seconds that the device needs for one call whose work has all been queued."""
    clock.synchronise()
    clock.hold(min(2 * wall_seconds, _LONGEST_HOLD_SECONDS))
    first = clock.mark()
    call()
    second = clock.mark()
    clock.synchronise()
    assert first is not None
    assert second is not None
    return clock.seconds_between(first, second)
