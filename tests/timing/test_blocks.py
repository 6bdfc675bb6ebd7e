"""Blocks are long enough, are read at their edges only, and tell who waits for whom."""

from __future__ import annotations

import statistics

import pytest
import torch
from asynchronous_device import AsynchronousDevice

from genbench.core.bench import EFFORTS
from genbench.timing.blocks import timed_blocks
from genbench.timing.clock import DeviceClock

EFFORT = EFFORTS["smoke"].model_copy(update={"block_seconds": 0.2, "min_blocks": 5, "min_seconds": 1.0})


def _timed(device: AsynchronousDevice, *, device_seconds: float, host_seconds: float, guess: float, effort=EFFORT):
    return timed_blocks(
        lambda: device.launch(device_seconds, host_seconds=host_seconds), device, seconds_per_call=guess, effort=effort
    )


@pytest.mark.parametrize("guess", [0.001, 0.01, 0.1], ids=["right", "ten times too long", "a hundred times too long"])
def test_a_block_is_never_shorter_than_asked_whatever_the_guess(guess):
    found = _timed(AsynchronousDevice(), device_seconds=0.001, host_seconds=0.0, guess=guess)
    assert 0.2 <= found.calls_per_block * 0.001 < 0.25
    assert found.seconds_per_call == pytest.approx([0.001] * len(found.seconds_per_call))


def test_calls_longer_than_a_block_stand_alone():
    device = AsynchronousDevice()
    found = _timed(device, device_seconds=2.0, host_seconds=0.0, guess=2.0)
    assert device.free_at - 100 < 2.0 * (5 + 1) + 1.1  # the blocks, one held call and its hold
    assert found.calls_per_block == 1
    assert len(found.seconds_per_call) == 5  # the least number of blocks, though a second would be over after one
    assert found.seconds_per_call == pytest.approx([2.0] * 5)


def test_blocks_go_on_for_the_seconds_that_are_asked():
    found = _timed(AsynchronousDevice(), device_seconds=0.001, host_seconds=0.0, guess=0.001, effort=EFFORT)
    assert sum(found.seconds_per_call) * found.calls_per_block >= 1.0
    longer = EFFORT.model_copy(update={"min_seconds": 3.0})
    found = _timed(AsynchronousDevice(), device_seconds=0.001, host_seconds=0.0, guess=0.001, effort=longer)
    assert sum(found.seconds_per_call) * found.calls_per_block >= 3.0


def test_the_device_is_waited_for_at_the_edges_of_blocks_only():
    device = AsynchronousDevice()
    found = _timed(device, device_seconds=0.001, host_seconds=0.0, guess=0.001)
    calls = found.calls_per_block * len(found.seconds_per_call)
    assert device.synchronisations < calls / 10


class Reading(AsynchronousDevice):
    """A device whose clock is slow to read."""

    def synchronise(self) -> None:
        super().synchronise()
        self.host_time += 0.001


def test_blocks_grow_until_reading_the_clock_costs_a_thousandth():
    found = _timed(Reading(), device_seconds=0.001, host_seconds=0.0, guess=0.001)
    assert found.calls_per_block * 0.001 >= 2.0  # two reads of a millisecond
    assert found.seconds_per_call == pytest.approx([0.001] * 5, rel=0.002)


def test_a_busy_device_is_not_host_bound_and_its_marks_agree_with_the_wall():
    found = _timed(AsynchronousDevice(), device_seconds=0.001, host_seconds=0.0005, guess=0.001)
    assert not found.host_bound
    assert statistics.median(found.device_seconds_per_call) == pytest.approx(0.001)


def test_a_device_that_waits_for_the_host_is_host_bound_though_marks_do_not_show_it():
    found = _timed(AsynchronousDevice(), device_seconds=0.001, host_seconds=0.0015, guess=0.0015)
    assert found.host_bound
    assert statistics.median(found.seconds_per_call) == pytest.approx(0.0015, rel=0.01)
    assert statistics.median(found.device_seconds_per_call) == pytest.approx(0.0015, rel=0.01)  # waiting passes time


@pytest.mark.parametrize(("share", "bound"), [(1.04, False), (1.06, True)])
def test_the_host_may_cost_five_percent(share, bound):
    effort = EFFORT.model_copy(update={"block_seconds": 2.0})  # so that the last call of a block weighs nothing
    found = _timed(AsynchronousDevice(), device_seconds=0.01, host_seconds=0.01 * share, guess=0.01, effort=effort)
    assert found.host_bound is bound


def test_marks_stay_few_when_calls_are_many():
    found = _timed(AsynchronousDevice(), device_seconds=1e-5, host_seconds=0.0, guess=1e-5)
    assert found.calls_per_block > 20_000
    assert len(found.device_seconds_per_call) <= 100 * len(found.seconds_per_call)
    assert found.device_seconds_per_call == pytest.approx([1e-5] * len(found.device_seconds_per_call))


def test_a_cpu_has_no_queue_and_is_never_host_bound():
    a = torch.randn(64, 64)
    effort = EFFORTS["smoke"]
    found = timed_blocks(lambda: a @ a, DeviceClock(torch.device("cpu")), seconds_per_call=1e-4, effort=effort)
    assert found.device_seconds_per_call is None
    assert not found.host_bound
    assert len(found.seconds_per_call) >= 3


@pytest.mark.gpu
@pytest.mark.parametrize(("side", "bound"), [(4096, False), (8, True)])
def test_small_operators_are_host_bound_on_a_device_and_large_ones_are_not(side, bound):
    device = torch.device("cuda")
    a = torch.randn(side, side, device=device)

    def call() -> None:
        for _ in range(10):
            torch.relu(a @ a)

    found = timed_blocks(call, DeviceClock(device), seconds_per_call=1e-3, effort=EFFORTS["smoke"])
    assert found.host_bound is bound
