"""The clock: synchronised reads, blocks long enough to trust, and what repeated readings say.

A device works ahead of the program that feeds it, so every read is preceded by a synchronisation,
and there are as few reads as possible: one for each block of at least `min_block_seconds`.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from genbench.core.record import Rate


def read(device: torch.device) -> float:
    """Seconds on a monotonic clock, after all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def block_length(seconds_per_round: float, *, min_block_seconds: float) -> int:
    """Rounds in a block so that it lasts at least `min_block_seconds`."""
    return max(1, math.ceil(min_block_seconds / max(seconds_per_round, 1e-9)))


def rate(values: Sequence[float], unit: str) -> Rate | None:
    """Median and spread of repeated readings, None when there are none."""
    if not values:
        return None
    p10, median, p90 = (float(q) for q in np.quantile(np.asarray(values), (0.1, 0.5, 0.9)))
    return Rate(median=median, p10=p10, p90=p90, unit=unit, raw=tuple(float(value) for value in values))


def chained_rate(parts: Sequence[tuple[float, Rate]]) -> Rate | None:
    """Rate of work done in stretches at different rates: the harmonic mean by share of the work.

    Args:
        parts: share of the work and its rate, for each stretch; shares of unmeasured ones are left out.
    """
    total = sum(share for share, _ in parts)
    if not parts or total <= 0:
        return None
    p10, median, p90 = (
        total / sum(share / getattr(one, name) for share, one in parts) for name in ("p10", "median", "p90")
    )
    raw = tuple(value for _, one in parts for value in one.raw)
    return Rate(median=median, p10=p10, p90=p90, unit=parts[0][1].unit, raw=raw)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new reading of the peak; on a CPU the peak is the process's and cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gib(device: torch.device) -> float:
    """Peak allocated device memory, or on a CPU the peak resident memory of the process, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # macOS counts bytes, Linux KiB
