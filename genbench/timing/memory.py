"""Peak memory, in a pass in which nothing is timed.

On a CUDA device three peaks differ: what tensors need, what the allocator holds (what one must own), and what the
driver counts for the process, which adds the context and libraries. The driver keeps no peak, but the allocator never
gives memory back on its own, so its count after the pass serves.

On Linux the peak of the host's memory is started anew through `/proc/self/clear_refs`. Where that is not permitted or
does nothing, and on other systems, `host_gib` is the peak of the whole life of the process.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from genbench.core.bench import Memory
from genbench.timing._nvml import open_gauge
from genbench.timing.clock import DeviceClock

_GIB = 2**30
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the peak resident set size to the present one
_SLACK_BYTES = 2**24  # the kernel counts pages in batches for each processor


def peak_memory(call: Callable[[], object], device: torch.device) -> Memory:
    """Peaks while `call` runs, what lives already included."""
    clock = DeviceClock(device)
    clock.synchronise()
    reset_host_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    call()
    clock.synchronise()
    host_gib = host_peak_bytes() / _GIB
    if device.type != "cuda":
        return Memory(host_gib=host_gib)
    return Memory(
        allocated_gib=torch.cuda.max_memory_allocated(device) / _GIB,
        reserved_gib=torch.cuda.max_memory_reserved(device) / _GIB,
        process_gib=_process_gib(device),
        host_gib=host_gib,
    )


def reset_host_peak() -> bool:
    """Start a new reading of the host's peak; False where the system does not let a process do so."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    peak, now = _resident("VmHWM"), _resident("VmRSS")  # some kernels take the request and keep the peak
    return peak is not None and now is not None and peak - now < _SLACK_BYTES


def host_peak_bytes() -> int:
    """Peak resident memory of the process since the last reset, or in its life."""
    peak = _resident("VmHWM")
    if peak is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def _resident(field: str) -> int | None:
    """Bytes in a field of the process's status, None where the system keeps none."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return None


def _process_gib(device: torch.device) -> float | None:
    """What the driver counts for this process, None in a container that numbers processes anew."""
    gauge = open_gauge(device)
    processes = None if gauge is None else gauge.processes()
    used = None if processes is None else processes.get(os.getpid())
    return None if used is None else used / _GIB
