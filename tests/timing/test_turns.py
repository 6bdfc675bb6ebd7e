"""Turns of processes that are timed side by side: alternate, never two at once, and nobody waits for the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from genbench.timing.turns import VARIABLE, Seat, asked_of_parent, at_once, deal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be waited for")
LOG = """
import os, sys, time
from genbench.timing.turns import asked_of_parent
name, count, seconds, ready = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
turn = asked_of_parent()
time.sleep(ready)
with open(sys.argv[5], "a", buffering=1) as log:
    for _ in range(count):
        with turn():
            log.write(f"{name} begins\\n")
            time.sleep(seconds)
            log.write(f"{name} ends\\n")
    if len(sys.argv) > 6:
        with turn():
            os._exit(1)
"""


class Table:
    """A process that takes turns, and the parent's ends of its pipes."""

    def __init__(self, *arguments: object) -> None:
        self.asked, ask = os.pipe()
        answered, self.answer = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOG, *map(str, arguments)],
            env={**os.environ, VARIABLE: f"{ask},{answered}"},
            pass_fds=(ask, answered),
        )
        os.close(ask)
        os.close(answered)
        self.seat = Seat(self.asked, self.answer, lambda: self.process.poll() is None)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.asked)
        os.close(self.answer)


@pytest.fixture
def played(tmp_path):
    """Play processes to their end; the lines of their common log."""
    tables: list[Table] = []

    def play(*sides, deadline_seconds=20.0):
        log = tmp_path / "log"
        tables.extend(Table(*side[:4], log, *side[4:]) for side in sides)
        in_time = deal([table.seat for table in tables], deadline_seconds=deadline_seconds)
        return in_time, log.read_text().splitlines() if log.exists() else []

    yield play
    for table in tables:
        table.close()


def test_turns_alternate_and_never_overlap_though_one_side_is_ready_much_later(played):
    in_time, lines = played(("base", 6, 0.01, 0.0), ("head", 6, 0.01, 0.5))
    assert in_time
    names = [line.split()[0] for line in lines[::2]]
    assert names == ["base", "head"] * 6
    assert lines == [f"{name} {what}" for name in names for what in ("begins", "ends")]


def test_the_side_that_has_more_to_do_goes_on_alone(played):
    in_time, lines = played(("base", 5, 0.01, 0.0), ("head", 2, 0.01, 0.0))
    assert in_time
    assert [line.split()[0] for line in lines[::2]].count("base") == 5
    assert lines[-4:] == ["base begins", "base ends"] * 2


def test_a_side_that_dies_in_its_turn_does_not_keep_the_other_waiting(played):
    in_time, lines = played(("base", 4, 0.01, 0.0), ("head", 1, 0.01, 0.0, "dies"))
    assert in_time
    assert lines.count("base ends") == 4


def test_a_side_that_never_asks_ends_and_the_other_plays_on(played):
    in_time, lines = played(("base", 3, 0.01, 0.0), ("head", 0, 0.0, 0.2))
    assert in_time
    assert lines == ["base begins", "base ends"] * 3


def test_a_side_that_hangs_meets_the_deadline(played):
    in_time, lines = played(("base", 2, 0.01, 0.0), ("head", 1, 60.0, 0.0), deadline_seconds=3.0)
    assert not in_time
    assert "head ends" not in lines


def test_a_pipe_that_is_kept_open_by_a_child_does_not_keep_a_process_alive():
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    try:
        began = time.monotonic()
        assert deal([Seat(asked, answer, lambda: False)], deadline_seconds=30.0)
        assert time.monotonic() - began < 10.0
    finally:
        for descriptor in (asked, ask, answered, answer):
            os.close(descriptor)


def test_without_a_parent_that_deals_every_turn_comes_at_once():
    turn = asked_of_parent({})
    assert turn is at_once
    with turn():
        pass


def test_an_error_in_a_turn_gives_it_back_and_is_not_lost():
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    dealer = threading.Thread(target=deal, args=([Seat(asked, answer, lambda: True)],), kwargs={"deadline_seconds": 10})
    dealer.start()
    turn = asked_of_parent({VARIABLE: f"{ask},{answered}"})
    with pytest.raises(ValueError, match="mine"), turn():
        raise ValueError("mine")
    with turn():
        pass
    os.close(ask)
    dealer.join(5.0)
    assert not dealer.is_alive()
    for descriptor in (asked, answered, answer):
        os.close(descriptor)
