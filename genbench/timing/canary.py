"""A canary: fixed work whose time says whether the machine still is what it was.

One unit of work is a matrix product and a convolution in float32, the same everywhere for a type of device. The canary
runs as many units as fill its time and says what one took, so canaries of different lengths compare. Precision settings
of the process (TF32) apply to it as to any model.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import torch
from torch.nn import functional as F

from genbench.timing.clock import Clock, read

_BLOCKS = 10  # the median over ten blocks is not moved by one interruption
_MOST_UNITS = 1000  # in a block, whatever the clock says of a single unit


@dataclasses.dataclass(frozen=True)
class Work:
    """One unit: a square matrix product, and a 3x3 convolution that keeps its channels."""

    matrix_side: int
    batch: int
    channels: int
    side: int


WORK: dict[str, Work] = {
    "cpu": Work(matrix_side=384, batch=4, channels=32, side=32),  # 0.19 GFLOP: 2 ms on a core
    "cuda": Work(matrix_side=4096, batch=64, channels=128, side=64),  # 215 GFLOP: 4 ms at 50 TFLOP/s
}
"""Units by type of device; changing one makes older canaries incomparable."""


@torch.no_grad()
def canary(clock: Clock, device: torch.device, *, seconds: float) -> float | None:
    """Seconds for a unit of work, the median over ten blocks that last `seconds` in all; None when `seconds` is 0.

    The global random stream is left alone.
    """
    if seconds <= 0:
        return None
    unit = unit_of(WORK[device.type], device)
    unit()
    wanted = seconds / _BLOCKS / max(_seconds_per_unit(unit, clock, units=1), 1e-9)
    units = min(max(1, math.ceil(wanted)), _MOST_UNITS)
    return statistics.median(_seconds_per_unit(unit, clock, units=units) for _ in range(_BLOCKS))


def unit_of(work: Work, device: torch.device) -> Callable[[], object]:
    """A call that does one unit of work; its numbers are never random, nor its result used."""
    ramp = torch.linspace(-1, 1, work.matrix_side**2, device=device)
    matrix = ramp.view(work.matrix_side, work.matrix_side)
    shape = (work.batch, work.channels, work.side, work.side)
    images = torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)
    kernel = torch.linspace(-1, 1, work.channels**2 * 9, device=device).view(work.channels, work.channels, 3, 3)
    return lambda: (matrix @ matrix, F.conv2d(images, kernel, padding=1))


def _seconds_per_unit(unit: Callable[[], object], clock: Clock, *, units: int) -> float:
    before = read(clock)
    for _ in range(units):
        unit()
    return (read(clock) - before) / units
