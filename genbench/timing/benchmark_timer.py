"""A timer for pytest-benchmark that waits for the device: a benchmark of queued work times the work, not the queueing.

    pytest --benchmark-timer=genbench.timing.benchmark_timer.device_timer

Without an accelerator it is `time.perf_counter`. It waits for the *current* device, `torch.cuda.set_device` sets it;
work queued on another device of the same machine is not waited for.
"""

from __future__ import annotations

import time

import torch


def device_timer() -> float:
    """Seconds on a monotonic clock of the host, after all work queued on the current accelerator is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
