"""Precision, recall, density and coverage beside torch-fidelity's two: run with `make benchmarks`."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from cpu_seconds import seconds

from genbench.metrics.precision_recall import precision_recall

NUM, SIZE = 5000, 2048
SHARE = 1.0 / 3.0
"""Of torch-fidelity's time for two of the four."""
GROWTH_MIB = 512
"""Most memory beyond the features."""

#: The peak is the kernel's, set back just before: `ru_maxrss` starts with that of the process that called us.
MEMORY = """
import re, sys, torch
from pathlib import Path
from genbench.metrics.precision_recall import precision_recall
num, size = map(int, sys.argv[1:])
precision_recall(torch.randn(600, size), torch.randn(600, size))  # what every first call loads
sets = [torch.empty(num, size).normal_(generator=torch.Generator().manual_seed(i)) for i in range(2)]
Path("/proc/self/clear_refs").write_text("5")
kib = lambda name: int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = kib("VmRSS")
precision_recall(*sets)
print((kib("VmHWM") - before) // 1024)
"""


def _features(num, size):
    """Correlated and not negative, like those after a ReLU: two float32 sets (num, size)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(size, size, generator=generator) / size**0.5 * torch.linspace(0.02, 1.0, size)
    first, second = (torch.randn(num, size, generator=generator) @ mix for _ in range(2))
    return (0.205 * first + 0.3).relu(), (0.2 * second + 0.3).relu()


def test_four_numbers_take_a_third_of_the_time_of_torch_fidelity_for_two(benchmark):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_fidelity")
        from torch_fidelity.metric_prc import prc_features_to_metric
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        samples, reference = _features(NUM, SIZE)
        ours, theirs = [], []
        for _ in range(4):  # in turns, so that a busy machine slows both
            theirs.append(
                seconds(lambda: prc_features_to_metric(samples, reference, prc_neighborhood=3, verbose=False))[0]
            )
            ours.append(seconds(lambda: precision_recall(samples, reference))[0])
        benchmark.pedantic(precision_recall, args=(samples, reference), rounds=1)
    finally:
        torch.set_num_threads(threads)
    benchmark.extra_info.update(ours=min(ours), theirs=min(theirs), ratio=min(theirs) / min(ours))
    assert min(ours) <= SHARE * min(theirs), f"{min(ours):.2f} s against {min(theirs):.2f} s"


@pytest.mark.parametrize(("num", "size"), [(20_000, 64), (10_000, 2048)])
def test_memory_beyond_the_features_stays_small(benchmark, num, size):
    if benchmark.disabled:
        pytest.skip("measured by `make benchmarks`")
    command = [sys.executable, "-c", MEMORY, str(num), str(size)]
    done = benchmark.pedantic(subprocess.run, args=(command,), kwargs={"capture_output": True, "text": True}, rounds=1)
    benchmark.extra_info["growth_mib"] = int(done.stdout)
    assert int(done.stdout) < GROWTH_MIB, done.stderr
