"""CPU seconds of calls, and of two calls in turns; the clock of one process, which other programs disturb least."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def seconds(call: Callable[[], T], *, rounds: int = 1) -> tuple[float, T]:
    """The shortest of `rounds` calls, and the value of the last."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        value = call()
        taken.append(time.process_time() - start)
    return min(taken), value


def best_ratio(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, repeats: int
) -> tuple[float, list[tuple[float, ...]]]:
    """Theirs over ours, each the fastest of rounds that alternate after one to warm up, and the seconds of all."""
    calls = [lambda call=call: [call() for _ in range(repeats)] for call in (theirs, ours)]
    taken = [tuple(seconds(call)[0] for call in calls) for _ in range(rounds + 1)]
    best = [min(each) for each in zip(*taken[1:], strict=True)]
    return best[0] / best[1], taken
