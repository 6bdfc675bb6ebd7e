"""Requests: one sample at a time, each with a new seed, the next only after the last has arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genbench.core.bench import Effort
from genbench.timing.clock import Clock, read
from genbench.timing.turns import Turn, at_once

_TURNS_PER_BLOCK = 10


def timed_requests(
    request: Callable[[int], object], clock: Clock, *, first_seed: int, effort: Effort, turn: Turn = at_once
) -> tuple[float, ...]:
    """Seconds of each request, in order: at least `requests` of them, over at least `request_seconds`.

    The device is idle when a request starts and done when it ends. Seeds count up from `first_seed`, so that no request
    can be answered from a cache. As many requests as fill a tenth of a block make a `turn`.
    """
    taken = list[float]()
    spent, length = 0.0, effort.block_seconds / _TURNS_PER_BLOCK
    while _more(taken, spent, effort):
        with turn():
            started = ended = read(clock)
            while _more(taken, spent + ended - started, effort) and ended - started < length:
                seed = first_seed + len(taken)
                before = read(clock)
                request(seed)
                ended = read(clock)
                taken.append(ended - before)
        spent += ended - started
    return tuple(taken)


def _more(taken: Sequence[float], seconds: float, effort: Effort) -> bool:
    return len(taken) < effort.requests or seconds < effort.request_seconds
