"""Clocks: waiting before reading, and what a clock that does not wait would say."""

from __future__ import annotations

import resource
import statistics
import sys
import time

import pytest
import torch
from asynchronous_device import AsynchronousDevice
from torch.utils.benchmark import Timer

from genbench.core.bench import EFFORTS
from genbench.core.errors import SettingError
from genbench.timing import blocks, requests, warmup
from genbench.timing.blocks import timed_blocks
from genbench.timing.clock import DeviceClock, read
from genbench.timing.requests import timed_requests
from genbench.timing.warmup import warm_up

CPU = torch.device("cpu")
EFFORT = EFFORTS["smoke"]
ON_DEVICE, ON_HOST = 0.003, 0.0001  # seconds that a call of the false device costs


def _call_of(device: AsynchronousDevice):
    return lambda *_: device.launch(ON_DEVICE, host_seconds=ON_HOST)


def _read_by(method: str) -> float:
    """Seconds per call that a method of `timing` reads off the false device."""
    device = AsynchronousDevice()
    call = _call_of(device)
    if method == "warm_up":
        return warm_up(call, device, effort=EFFORT).seconds_per_call
    if method == "timed_requests":
        return statistics.median(timed_requests(call, device, first_seed=0, effort=EFFORT))
    found = timed_blocks(call, device, seconds_per_call=ON_DEVICE, effort=EFFORT)
    return statistics.median(found.seconds_per_call)


METHODS = ["warm_up", "timed_blocks", "timed_requests"]


@pytest.mark.parametrize("method", METHODS)
def test_work_that_is_queued_is_waited_for(method):
    assert ON_DEVICE <= _read_by(method) <= ON_DEVICE + ON_HOST + 1e-9  # the host asks before the device can start


def test_in_a_block_the_host_asks_while_the_device_works():
    assert _read_by("timed_blocks") == pytest.approx(ON_DEVICE + ON_HOST / 19)  # it is waited for once in 19 calls


@pytest.mark.parametrize("method", METHODS)
def test_without_synchronisation_only_the_asking_would_be_read(method, monkeypatch):
    for module in (blocks, requests, warmup):
        monkeypatch.setattr(module, "read", lambda clock: clock.now())
    wrong = _read_by(method)
    assert wrong == pytest.approx(ON_HOST)
    assert wrong < 0.05 * ON_DEVICE  # so the test above cannot pass when a synchronisation is missing


def test_a_read_waits_first():
    device = AsynchronousDevice()
    device.launch(5.0, host_seconds=1.0)
    assert device.now() == 101.0
    assert read(device) == 106.0


def test_a_cpu_has_no_queue_to_mark_or_hold():
    clock = DeviceClock(CPU)
    before = read(clock)
    clock.hold(10.0)
    assert clock.mark() is None
    assert 0 <= read(clock) - before < 5.0


def test_a_device_that_cannot_be_waited_for_is_refused():
    with pytest.raises(SettingError, match="device `meta` cannot be timed, expected `cpu` or `cuda`"):
        DeviceClock(torch.device("meta"))


class Sleeper:
    """Keeps the processor busy for a known time, and reads what it really took on the way."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.taken: list[float] = []

    def __call__(self, seed: int = 0) -> None:
        before = time.perf_counter()
        while time.perf_counter() - before < self.seconds:
            pass
        self.taken.append(time.perf_counter() - before)


def test_a_sleeper_of_known_cost_is_timed_in_blocks_to_within_two_percent():
    sleeper = Sleeper(0.002)
    found = timed_blocks(sleeper, DeviceClock(CPU), seconds_per_call=0.002, effort=EFFORT)
    length = found.calls_per_block
    timed = sleeper.taken[-length * len(found.seconds_per_call) :]
    known = [statistics.fmean(timed[start : start + length]) for start in range(0, len(timed), length)]
    ratios = [value / true for value, true in zip(found.seconds_per_call, known, strict=True)]
    assert statistics.median(ratios) == pytest.approx(1.0, abs=0.02)


def test_a_sleeper_of_known_cost_is_timed_request_by_request_to_within_two_percent():
    sleeper = Sleeper(0.01)
    found = timed_requests(sleeper, DeviceClock(CPU), first_seed=0, effort=EFFORT)
    ratios = [value / true for value, true in zip(found, sleeper.taken, strict=True)]
    assert statistics.median(ratios) == pytest.approx(1.0, abs=0.02)


# Shorter than a scheduler's slice, so that many pairs are whole on a busy machine too; and long enough for the few
# microseconds that the timer of torch adds to each block, whatever stands in it.
PAIR_SECONDS = 0.002
PAIR = EFFORT.model_copy(update={"block_seconds": PAIR_SECONDS, "min_blocks": 1, "min_seconds": PAIR_SECONDS / 2})


def _mean_of(timer: Timer, calls: int) -> float:
    """What the timer of torch says after a block that it does not count, as ours is sized by such a block."""
    timer.timeit(calls)
    return timer.timeit(calls).mean


def _interruptions() -> int:
    """How often this thread has given up its processor, or had to."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nvcsw + usage.ru_nivcsw


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the interruptions of a thread")
def test_blocks_agree_with_the_timer_of_torch_on_the_same_operation():
    a = torch.randn(128, 128)
    call, clock = lambda: a @ a, DeviceClock(CPU)
    timer = Timer("call()", globals={"call": call})
    quickest = min(timer.timeit(5).mean for _ in range(20))
    calls, ratios = 1, []
    while len(ratios) < 400:  # pairs in which nothing else ran on the processor
        interruptions = _interruptions()
        first = _mean_of(timer, calls) if len(ratios) % 2 else None
        ours = timed_blocks(call, clock, seconds_per_call=quickest, effort=PAIR)
        alike = first is None or ours.calls_per_block == calls
        calls = ours.calls_per_block
        theirs = first or _mean_of(timer, calls)
        if alike and _interruptions() == interruptions:
            ratios.append(ours.seconds_per_call[0] / theirs)
    assert statistics.median(ratios) == pytest.approx(1.0, abs=0.02)


@pytest.mark.gpu
def test_blocks_agree_with_do_bench_of_triton_on_the_same_operation():
    testing = pytest.importorskip("triton.testing")
    device = torch.device("cuda")
    a = torch.randn(4096, 4096, device=device)
    clock, call = DeviceClock(device), lambda: a @ a
    seconds = warm_up(call, clock, effort=EFFORTS["quick"]).seconds_per_call
    ratios = []
    for turn in range(21):
        theirs = testing.do_bench(call, return_mode="median") / 1000 if turn % 2 else None
        ours = timed_blocks(call, clock, seconds_per_call=seconds, effort=EFFORT)
        value = statistics.median(ours.seconds_per_call)
        ratios.append(value / (theirs or testing.do_bench(call, return_mode="median") / 1000))
    assert statistics.median(ratios) == pytest.approx(1.0, abs=0.02)


@pytest.mark.gpu
def test_a_held_device_lets_the_host_run_ahead():
    clock = DeviceClock(torch.device("cuda"))
    clock.hold(0.01)
    read(clock)
    before = read(clock)
    clock.hold(0.1)
    asked = clock.now() - before
    taken = read(clock) - before
    assert asked < 0.02
    assert 0.1 <= taken < 1.0
