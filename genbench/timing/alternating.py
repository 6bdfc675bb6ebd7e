"""Two calls timed against each other in one process: a block of the one, a block of the other, and so on.

What moves slowly (a clock, heat, a neighbour) hits both blocks of a pair alike and cancels in their ratio. What the two
calls do not share within a process, such as where their memory lies, does not cancel; for that there are rounds, each
in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from genbench.core.bench import Effort
from genbench.timing.blocks import timed_blocks
from genbench.timing.clock import Clock, read
from genbench.timing.warmup import warm_up


def alternating_blocks(
    first: Callable[[], object], second: Callable[[], object], clock: Clock, *, effort: Effort
) -> Iterator[tuple[float, float]]:
    """Pairs of seconds per call, one block of each call in a pair, without end.

    Both are warm before the first pair. Which of the two a pair begins with alternates.
    """
    calls = (first, second)
    sizes = [_calls_per_block(call, clock, effort) for call in calls]
    order = (0, 1)
    while True:
        taken = [0.0, 0.0]
        for side in order:
            before = read(clock)
            for _ in range(sizes[side]):
                calls[side]()
            taken[side] = (read(clock) - before) / sizes[side]
        yield taken[0], taken[1]
        order = (order[1], order[0])


def _calls_per_block(call: Callable[[], object], clock: Clock, effort: Effort) -> int:
    """Calls that fill a block, once the call is warm."""
    warm = warm_up(call, clock, effort=effort)
    one_block = effort.model_copy(update={"min_blocks": 1, "min_seconds": 0.0})
    return timed_blocks(call, clock, seconds_per_call=warm.seconds_per_call, effort=one_block).calls_per_block
