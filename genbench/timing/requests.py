"""Requests: one sample at a time, each with a new seed, the next only after the last has arrived."""

from __future__ import annotations

from collections.abc import Callable

from genbench.core.bench import Effort
from genbench.timing.clock import Clock, read


def timed_requests(
    request: Callable[[int], object], clock: Clock, *, first_seed: int, effort: Effort
) -> tuple[float, ...]:
    """Seconds of each request, in order: at least `requests` of them, over at least `request_seconds`.

    The device is idle when a request starts and done when it ends. Seeds count up from `first_seed`, so that no request
    can be answered from a cache.
    """
    taken = list[float]()
    started = read(clock)
    ended = started
    while len(taken) < effort.requests or ended - started < effort.request_seconds:
        seed = first_seed + len(taken)
        before = read(clock)
        request(seed)
        ended = read(clock)
        taken.append(ended - before)
    return tuple(taken)
