"""Clocks: what must be done before a device's time can be read.

A device works ahead of the program that feeds it. A clock that is read without waiting for the device says how long it
took to *ask* for the work. So `read` synchronises first, and everything under `timing` reads time through it. A clock
is an argument everywhere, so that a test can put a false device in its place.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, Self, cast

import torch

from genbench.core.errors import SettingError

_FASTEST_CYCLES_PER_SECOND = 3.0e9  # above the boost clock of every GPU so far, so that a hold is never too short


class Mark(Protocol):
    """A point in a device's queue of work, reached when all work queued before it is done."""

    def elapsed_time(self, end: Self, /) -> float:
        """Milliseconds on the device's own clock from this point to a later one; both must have been reached."""


class Clock(Protocol):
    """Reads the time of one device."""

    def synchronise(self) -> None:
        """Wait until all work queued on the device is done."""

    def now(self) -> float:
        """Seconds on a monotonic clock of the host, read without waiting."""

    def mark(self) -> Mark | None:
        """Put a mark into the device's queue; None on a device without a queue."""

    def seconds_between(self, first: Mark, second: Mark, /) -> float:
        """Seconds on the device's own clock between two marks that it has passed."""

    def hold(self, seconds: float, /) -> None:
        """Keep the device busy with nothing, so that the host can queue work ahead; nothing without a queue."""


class DeviceClock:
    """The clock of a CPU or a CUDA device.

    Raises:
        SettingError: a device of another type, whose work this clock could not wait for.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type not in ("cpu", "cuda"):
            raise SettingError(
                f"device `{device}` cannot be timed, expected `cpu` or `cuda`",
                hint="time on `cpu`: a clock that does not wait for the device would give numbers that are too good",
            )
        self._device = device
        self._queued = device.type == "cuda"

    def synchronise(self) -> None:
        """Wait for all streams of the device."""
        if self._queued:
            torch.cuda.synchronize(self._device)

    def now(self) -> float:
        """Seconds of `time.perf_counter`."""
        return time.perf_counter()

    def mark(self) -> Mark | None:
        """An event in the current stream of the device, or None on a CPU."""
        if not self._queued:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return cast("Mark", event)

    def seconds_between(self, first: Mark, second: Mark) -> float:
        """Seconds between two events, to about half a microsecond."""
        return first.elapsed_time(second) / 1000

    def hold(self, seconds: float) -> None:
        """Spin on the device for at least so long."""
        if self._queued:
            with torch.cuda.device(self._device):
                # the only way to make a CUDA device wait without the host; PyTorch tests its own streams with it
                cast("Any", torch.cuda)._sleep(int(seconds * _FASTEST_CYCLES_PER_SECOND))


def read(clock: Clock) -> float:
    """Seconds after all work queued so far is done."""
    clock.synchronise()
    return clock.now()
