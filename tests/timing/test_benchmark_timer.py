"""The timer inside pytest-benchmark, over a device that works behind the caller's back."""

from __future__ import annotations

import json
import time

import pytest
import torch

from genbench.timing.benchmark_timer import device_timer

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.alone  # pytest-benchmark measures nothing beside other workers

QUEUE = """
    import time, torch

    class Device:
        '''Takes work at once, and has done it later.'''
        done_at = 0.0

        def queue(self, seconds):
            self.done_at = max(self.done_at, time.perf_counter()) + seconds

        def synchronize(self):
            time.sleep(max(0.0, self.done_at - time.perf_counter()))

    def test_queued(benchmark, monkeypatch):
        device = Device()
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "synchronize", device.synchronize)
        benchmark.pedantic(device.queue, args=(0.02,), rounds=5, warmup_rounds=1)
"""
QUEUED_SECONDS = 0.02


def _benchmarked(pytester, *words):
    pytester.makepyfile(QUEUE)
    names = ("-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider", "--benchmark-json=out.json")
    pytester.runpytest_inprocess(*names, *words).assert_outcomes(passed=1)
    (made,) = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    return made


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_queued_work_is_timed_through_the_device_timer(pytester):
    made = _benchmarked(pytester, "--benchmark-timer=genbench.timing.benchmark_timer.device_timer")
    assert made["options"]["timer"] == "device_timer"
    assert made["stats"]["min"] >= 0.98 * QUEUED_SECONDS


def test_the_usual_timer_sees_only_the_queueing(pytester):
    assert _benchmarked(pytester)["stats"]["min"] < 0.1 * QUEUED_SECONDS


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without an accelerator")
def test_without_an_accelerator_it_is_the_clock_of_the_host():
    before, between, after = time.perf_counter(), device_timer(), time.perf_counter()
    assert before <= between <= after


@pytest.mark.gpu
def test_work_on_a_gpu_is_waited_for():
    x = torch.randn(4096, 4096, device="cuda")
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize()
    before = device_timer()
    events[0].record()
    for _ in range(50):
        x @ x
    events[1].record()
    assert device_timer() - before >= events[0].elapsed_time(events[1]) / 1000
