"""Warm-up ends when readings are steady, not before, and says when they never are."""

from __future__ import annotations

import pytest
from asynchronous_device import AsynchronousDevice

from genbench.core.bench import EFFORTS
from genbench.timing.warmup import warm_up

EFFORT = EFFORTS["smoke"].model_copy(
    update={"warmup_calls": 10, "warmup_seconds": 1.25, "max_warmup_seconds": 20.0, "block_seconds": 0.2}
)


class Settling:
    """A call whose time shrinks by a factor at each call until it reaches its steady time."""

    def __init__(self, *, steady: float, excess: float, factor: float) -> None:
        self.device = AsynchronousDevice()
        self.steady, self.excess, self.factor = steady, excess, factor
        self.calls = 0

    def __call__(self) -> None:
        self.device.launch(self.steady * (1 + self.excess * self.factor**self.calls), host_seconds=0.0)
        self.calls += 1


def test_a_steady_call_is_warm_after_the_least_calls_and_seconds():
    call = Settling(steady=0.125, excess=0.0, factor=1.0)
    found = warm_up(call, call.device, effort=EFFORT)
    assert found.stable
    assert found.calls == call.calls == 11  # the first and two windows of five, which last the seconds that are asked
    assert found.first_call_seconds == 0.125
    assert found.seconds == 1.25
    assert found.seconds_per_call == 0.125


def test_seconds_are_waited_for_when_the_calls_are_quick():
    call = Settling(steady=0.001, excess=0.0, factor=1.0)
    found = warm_up(call, call.device, effort=EFFORT)
    assert found.stable
    assert 1.25 <= found.seconds < 1.5
    assert found.seconds_per_call == pytest.approx(0.001)


def test_readings_that_still_fall_are_not_steady():
    call = Settling(steady=0.1, excess=1.0, factor=0.97)
    found = warm_up(call, call.device, effort=EFFORT)
    assert found.stable
    assert found.seconds_per_call == pytest.approx(0.1, rel=0.15)
    assert found.calls > 40  # windows of five differ by over 2 % for as long as 2 (1 - 0.97^5) 0.97^n > 0.02


def test_a_call_that_never_settles_ends_at_the_limit_and_is_flagged():
    call = Settling(steady=0.1, excess=0.5, factor=1.05)
    found = warm_up(call, call.device, effort=EFFORT.model_copy(update={"max_warmup_seconds": 5.0}))
    assert not found.stable
    assert found.seconds >= 5.0


def test_a_long_first_call_is_a_number_of_its_own_and_uses_up_no_warm_up():
    device = AsynchronousDevice()
    times = iter([100.0])
    found = warm_up(lambda: device.launch(next(times, 0.125), host_seconds=0.0), device, effort=EFFORT)
    assert found.first_call_seconds == pytest.approx(100.0)
    assert found.stable
    assert found.seconds == 1.25


def test_calls_longer_than_the_limit_are_made_twice_and_flagged():
    call = Settling(steady=30.0, excess=0.0, factor=1.0)
    found = warm_up(call, call.device, effort=EFFORT)
    assert (found.calls, found.stable) == (2, False)
    assert found.seconds_per_call == pytest.approx(30.0)
