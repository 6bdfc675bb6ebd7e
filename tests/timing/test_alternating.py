"""Alternating blocks on a clock of its own, which moves only when a call says so."""

from __future__ import annotations

import itertools

import pytest

from genbench.core.bench import EFFORTS
from genbench.timing.alternating import alternating_blocks


class StillClock:
    """Stands still between calls."""

    def __init__(self):
        self.seconds = 0.0

    def synchronise(self):
        pass

    def now(self):
        return self.seconds

    def mark(self):
        return None

    def seconds_between(self, first, second):
        raise AssertionError("a clock without marks")

    def hold(self, seconds):
        pass


@pytest.fixture
def clock():
    return StillClock()


def _calls(clock, log, **seconds):
    def call(name):
        log.append(name)
        clock.seconds += seconds[name]

    return [lambda name=name: call(name) for name in seconds]


def test_each_pair_holds_the_seconds_of_its_calls(clock):
    calls = _calls(clock, [], first=0.004, second=0.005)
    for pair in itertools.islice(alternating_blocks(*calls, clock, effort=EFFORTS["quick"]), 4):
        assert pair == pytest.approx((0.004, 0.005))


def test_blocks_last_as_long_as_the_effort_says_and_take_turns_in_who_begins(clock):
    log = []
    calls = _calls(clock, log, first=0.004, second=0.02)
    pairs = alternating_blocks(*calls, clock, effort=EFFORTS["quick"])
    next(pairs)
    log.clear()
    for _ in range(4):
        next(pairs)
    blocks = [(name, len(list(group))) for name, group in itertools.groupby(log)]
    first, second = blocks[1][1] // 2, blocks[0][1]  # neighbours of one name are two blocks
    assert [name for name, _ in blocks] == ["second", "first", "second", "first", "second"]
    assert [count for _, count in blocks] == [second, 2 * first, 2 * second, 2 * first, second]
    assert first * 0.004 >= EFFORTS["quick"].block_seconds
    assert second * 0.02 >= EFFORTS["quick"].block_seconds


def test_a_drift_cancels_in_the_ratio_to_first_order(clock):
    def call(share):
        clock.seconds += share * 0.01 * (1 + 0.01 * clock.seconds)  # a machine that gets slower and slower

    pairs = alternating_blocks(lambda: call(1.0), lambda: call(1.1), clock, effort=EFFORTS["quick"])
    taken = list(itertools.islice(pairs, 40))
    product = 1.0
    for first, second in taken:
        product *= second / first
    assert taken[-1][0] > 1.1 * taken[0][0]
    assert product ** (1 / len(taken)) == pytest.approx(1.1, rel=1e-4)
