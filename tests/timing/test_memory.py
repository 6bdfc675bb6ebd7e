"""Peak memory of a pass of its own."""

from __future__ import annotations

import gc

import pytest
import torch

from genbench.timing.memory import host_peak_bytes, peak_memory, reset_host_peak

CPU = torch.device("cpu")
MIB, GIB = 2**20, 2**30


def _touch(num_bytes: int) -> None:
    torch.ones(num_bytes // 4).sum()


def test_the_peak_of_the_host_holds_what_the_call_used_for_a_moment():
    gc.collect()
    before = peak_memory(lambda: None, CPU).host_gib
    assert peak_memory(lambda: _touch(64 * MIB), CPU).host_gib >= before + 0.9 * 64 * MIB / GIB


@pytest.mark.skipif(not reset_host_peak(), reason="this system does not let a process reset its peak")
def test_a_peak_of_the_past_is_forgotten():
    high = peak_memory(lambda: _touch(64 * MIB), CPU).host_gib
    assert peak_memory(lambda: None, CPU).host_gib <= high - 0.9 * 64 * MIB / GIB


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
