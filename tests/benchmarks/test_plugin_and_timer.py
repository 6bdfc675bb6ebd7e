"""What the pytest plugin adds to a session that has no gates, and what a reading of the device timer costs.

Run with `make benchmarks`. Sides take turns; sessions are counted in CPU seconds of their process.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

import pytest
import torch

from genbench.timing.benchmark_timer import device_timer

pytestmark = pytest.mark.slow

PAIRS, READINGS = 9, 1000
MOST_SESSION_SECONDS = 0.1
MOST_READING_SECONDS = 50e-6
"""A thousandth of a block of 50 ms."""


@pytest.fixture(scope="module", autouse=True)
def _only_when_timed(request):
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("timed by `make benchmarks`")


def _session_seconds(folder, *words):
    """CPU seconds of a session that collects one empty test."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, str(folder)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_session_without_gates_pays_a_tenth_of_a_second_at_most(benchmark, tmp_path):
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    plugin = ("-p", "genbench.pytest_plugin")
    _session_seconds(tmp_path, *plugin)  # writes bytecode
    pairs = [(_session_seconds(tmp_path), _session_seconds(tmp_path, *plugin)) for _ in range(PAIRS)]
    added = statistics.median(after - before for before, after in pairs)
    benchmark.extra_info.update(pairs=pairs, added_seconds=added)
    benchmark.pedantic(_session_seconds, args=(tmp_path, *plugin), rounds=1)
    assert added < MOST_SESSION_SECONDS, pairs


def _reading_seconds(timer):
    start = time.perf_counter()
    for _ in range(READINGS):
        timer()
    return (time.perf_counter() - start) / READINGS


def test_a_reading_of_an_idle_device_costs_microseconds(benchmark):
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    pairs = [(_reading_seconds(time.perf_counter), _reading_seconds(device_timer)) for _ in range(PAIRS)]
    benchmark.extra_info.update(host=min(host for host, _ in pairs), device=min(device for _, device in pairs))
    benchmark(device_timer)
    assert min(device for _, device in pairs) < MOST_READING_SECONDS, pairs
