"""What the driver of an NVIDIA device says of it, through NVML; every answer may be None.

NVML is an extra (`pip install "genbench[gpu]"`). Without it, without a driver, on a slice of a device or when a
question is not supported, nothing fails: what could not be read is None.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

import torch

_CLOCK_SM, _TEMPERATURE_GPU = 1, 0  # nvml.h: NVML_CLOCK_SM, NVML_TEMPERATURE_GPU
_SOFTWARE_THERMAL, _HARDWARE_THERMAL, _POWER_BRAKE = 0x20, 0x40, 0x80  # nvml.h: nvmlClocksEventReason*
_HELD_DOWN = _SOFTWARE_THERMAL | _HARDWARE_THERMAL | _POWER_BRAKE

Answer = TypeVar("Answer")


class Process(Protocol):
    """A process on a device."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - NVML's name
    """Bytes."""


class NvmlLibrary(Protocol):
    """The few functions of `pynvml` that are used here."""

    @property
    def NVMLError(self) -> type[Exception]:  # noqa: N802
        """Base of all its errors."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Connect to the driver."""

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, /) -> object:  # noqa: N802
        """The device with that identifier."""

    def nvmlDeviceGetClockInfo(self, handle: object, kind: int, /) -> int:  # noqa: N802
        """MHz."""

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int, /) -> int:  # noqa: N802
        """Degrees Celsius."""

    def nvmlDeviceGetPowerUsage(self, handle: object, /) -> int:  # noqa: N802
        """Milliwatts."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, /) -> int:  # noqa: N802
        """Millijoules since the driver was loaded."""

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object, /) -> int:  # noqa: N802
        """A bit for each reason why the clock is lower than it could be."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object, /) -> Sequence[Process]:  # noqa: N802
        """Processes with a context on the device."""


class Gauge:
    """Reads one device; an answer that the driver refuses is None."""

    def __init__(self, library: NvmlLibrary, handle: object) -> None:
        self._library, self._handle = library, handle

    def clock_mhz(self) -> int | None:
        """Clock of the multiprocessors."""
        return self._ask(lambda: self._library.nvmlDeviceGetClockInfo(self._handle, _CLOCK_SM))

    def temperature_c(self) -> int | None:
        """Temperature of the chip."""
        return self._ask(lambda: self._library.nvmlDeviceGetTemperature(self._handle, _TEMPERATURE_GPU))

    def power_watts(self) -> float | None:
        """Power drawn by the board."""
        return self._ask(lambda: self._library.nvmlDeviceGetPowerUsage(self._handle) / 1000)

    def energy_joules(self) -> float | None:
        """Energy since the driver was loaded."""
        return self._ask(lambda: self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000)

    def held_down(self) -> bool | None:
        """Whether heat or a power brake holds the clock down at this moment."""
        reasons = self._ask(lambda: self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))
        return None if reasons is None else bool(reasons & _HELD_DOWN)

    def processes(self) -> dict[int, int | None] | None:
        """Bytes that each process holds on the device, by its number; None for a process hides its bytes."""
        found = self._ask(lambda: self._library.nvmlDeviceGetComputeRunningProcesses(self._handle))
        return None if found is None else {process.pid: process.usedGpuMemory for process in found}

    def _ask(self, question: Callable[[], Answer]) -> Answer | None:
        try:
            return question()
        except (self._library.NVMLError, AttributeError):  # refused, or a library of a version without the function
            return None


def open_gauge(device: torch.device) -> Gauge | None:
    """The gauge of a CUDA device; None for other devices and where NVML cannot be reached."""
    library = load_library()
    if device.type != "cuda" or library is None:
        return None
    return gauge_of(str(torch.cuda.get_device_properties(device).uuid), library)


def gauge_of(uuid: str, library: NvmlLibrary) -> Gauge | None:
    """The gauge of the device with that identifier, which holds whatever subset of devices the process may see."""
    try:
        library.nvmlInit()
        return Gauge(library, library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}".encode()))
    except library.NVMLError:
        return None


def load_library() -> NvmlLibrary | None:
    """NVML, None where it is not installed."""
    try:
        return cast("NvmlLibrary", importlib.import_module("pynvml"))
    except ImportError:
        return None
