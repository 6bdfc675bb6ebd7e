"""Peak memory of a pass of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from genbench.timing.memory import host_peak_bytes, peak_memory

CPU = torch.device("cpu")
MIB, GIB = 2**20, 2**30
BYTES = 64 * MIB
_IN_A_NEW_PROCESS = f"""
import torch
from genbench.timing.memory import peak_memory, reset_host_peak

def touch():
    torch.ones({BYTES} // 4).sum()

touch()
cpu = torch.device("cpu")
calls = [lambda: None, touch, lambda: None]
print(int(reset_host_peak()), *(peak_memory(call, cpu).host_gib for call in calls))
"""


@pytest.fixture(scope="module")
def peaks() -> tuple[bool, float, float, float]:
    """Whether a peak can be forgotten, and peaks without, with and without a call that uses 64 MiB.

    In a process of its own: one that has freed a lot before serves the call from what it still holds.
    """
    done = subprocess.run([sys.executable, "-c", _IN_A_NEW_PROCESS], capture_output=True, text=True, check=True)
    forgets, *gib = done.stdout.split()
    return bool(int(forgets)), *(float(one) for one in gib)


def test_the_peak_of_the_host_holds_what_the_call_used_for_a_moment(peaks):
    forgets, before, during, _ = peaks
    if not forgets:
        pytest.skip("this system does not let a process reset its peak")
    assert during >= before + 0.9 * BYTES / GIB


def test_a_peak_of_the_past_is_forgotten(peaks):
    forgets, _, during, after = peaks
    if not forgets:
        pytest.skip("this system does not let a process reset its peak")
    assert after <= during - 0.9 * BYTES / GIB


def test_a_cpu_has_no_device_memory():
    found = peak_memory(lambda: None, CPU)
    assert (found.allocated_gib, found.reserved_gib, found.process_gib) == (None, None, None)


def test_the_peak_is_that_of_a_process_that_has_imported_torch():
    assert 50 * MIB < host_peak_bytes() < 64 * GIB


@pytest.mark.gpu
def test_the_peak_of_a_device_is_what_tensors_needed_at_once():
    device = torch.device("cuda")
    kept = torch.ones(64 * MIB // 4, device=device)
    found = peak_memory(lambda: torch.ones(128 * MIB // 4, device=device).add_(1), device)
    now = torch.cuda.memory_allocated(device) / GIB
    assert found.allocated_gib == pytest.approx(now + 128 * MIB / GIB)
    assert found.reserved_gib >= found.allocated_gib >= kept.nbytes / GIB
    assert peak_memory(lambda: None, device).allocated_gib == pytest.approx(now)
    assert found.process_gib is None or found.process_gib >= found.reserved_gib
