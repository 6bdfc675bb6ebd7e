"""Turns: two processes that time the same kind of work run their blocks alternately.

A busy machine is not equally busy for long. Two processes that are timed one after the other meet different neighbours,
and their ratio says as much about these as about the code. Where both stand ready at once and take blocks in turn,
whatever slows the machine slows the blocks of both.

A process asks for a turn, waits until it is given, works, and says that it is done. It asks its parent, which gives
turns by `deal`: never two at a time, and never two in a row to the same process as long as the other lives, so that one
which is ready waits for the other. A process without a parent that deals takes every turn at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

VARIABLE = "GENBENCH_TURNS"
"""Names the two file descriptors of a process that takes turns: it writes to the first and reads from the second."""
_ASK, _DONE, _GIVE = b"?", b".", b"!"
_LOOK_SECONDS = 1.0  # between looks at whether a silent process still lives

Turn = Callable[[], AbstractContextManager[None]]
"""Makes a context in which no other process of the same table works."""


def at_once() -> AbstractContextManager[None]:
    """A turn that nobody has to give."""
    return contextlib.nullcontext()


def asked_of_parent(environment: Mapping[str, str] = os.environ) -> Turn:
    """Turns that the parent process deals, or `at_once` where it deals none."""
    given = environment.get(VARIABLE)
    if given is None:
        return at_once
    ask, answer = (int(part) for part in given.split(","))

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        os.write(ask, _ASK)
        os.read(answer, 1)  # empty where the parent is gone, which ends this process by other means
        try:
            yield
        finally:
            os.write(ask, _DONE)

    return turn


@dataclass(frozen=True)
class Seat:
    """The parent's ends of a process's two pipes."""

    asked: int
    """Read: what the process says."""
    answer: int
    """Written: a turn is given."""
    lives: Callable[[], bool]
    """Whether the process still runs. Its end of the pipe may be kept open by a child of its own."""


def deal(seats: Sequence[Seat], *, deadline_seconds: float) -> bool:
    """Give turns until no process wants more; False where the deadline came first.

    A process that says nothing more is left when it closes its pipe or ends.
    """
    waiting, gone = set[int](), set[int]()
    working: int | None = None
    last: int | None = None
    ends = time.monotonic() + deadline_seconds
    while len(gone) < len(seats):
        left = ends - time.monotonic()
        if left <= 0:
            return False
        open_seats = {seats[i].asked: i for i in range(len(seats)) if i not in gone}
        ready = select.select(list(open_seats), [], [], min(left, _LOOK_SECONDS))[0]
        for descriptor in ready:
            seat = open_seats[descriptor]
            said = os.read(descriptor, 1)
            if said == _ASK:
                waiting.add(seat)
            elif working == seat:  # done, or gone in the middle of its turn
                working = None
            if not said:
                gone.add(seat)
        if not ready:
            gone |= {seat for seat in open_seats.values() if not seats[seat].lives()}
        waiting -= gone
        working = None if working in gone else working
        if working is None and (seat_next := _next(waiting, last, others_live=len(seats) - len(gone) > 1)) is not None:
            working = last = seat_next
            waiting.discard(seat_next)
            with contextlib.suppress(BrokenPipeError):
                os.write(seats[seat_next].answer, _GIVE)
    return True


def _next(waiting: set[int], last: int | None, *, others_live: bool) -> int | None:
    """Who comes next: whoever waits and was not the last; the last one again only where no other lives."""
    fresh = sorted(seat for seat in waiting if seat != last)
    if fresh:
        return fresh[0]
    return last if last in waiting and not others_live else None
