"""The machine while a round runs: clock, heat, power, energy, throttling, other processes.

A thread asks NVML five times a second and sleeps in between. On a CPU there is nothing to ask but the load average,
and no thread is started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import threading
from typing import Self

import torch

from genbench.core.bench import Machine
from genbench.timing._nvml import Gauge, open_gauge

_INTERVAL_SECONDS = 0.2
_SAMPLES_PER_LISTING = 5  # processes are listed once a second: they come and go slowly, and the list costs more


@dataclasses.dataclass(frozen=True)
class _Sample:
    clock_mhz: int | None
    temperature_c: int | None
    power_watts: float | None
    held_down: bool | None


class Monitor:
    """Watches a device between entering and leaving; `reading` says what was seen.

    Args:
        device: what to watch.
        gauge: reads the device; None opens the device's own, if there is one.
    """

    def __init__(self, device: torch.device, *, gauge: Gauge | None = None) -> None:
        self._gauge = gauge if gauge is not None else open_gauge(device)
        self._samples = list[_Sample]()
        self._processes: set[int] | None = None
        self._energy: tuple[float | None, float | None] = (None, None)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._gauge is not None:
            energy = self._gauge.energy_joules()
            self._energy = (energy, energy)
            self._look(self._gauge)
            self._thread = threading.Thread(target=self._watch, args=(self._gauge,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._thread is not None and self._gauge is not None:
            self._thread.join()
            self._look(self._gauge)
            self._list(self._gauge)

    def reading(self) -> Machine:
        """What was seen so far; None for what the machine does not say.

        The energy is that between entering and the latest look, which is leaving when that is past. The load average
        is that of the last minute, the process itself included.
        """
        samples = tuple(self._samples)
        clocks = [sample.clock_mhz for sample in samples if sample.clock_mhz is not None]
        heat = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
        power = [sample.power_watts for sample in samples if sample.power_watts is not None]
        held = [sample.held_down for sample in samples if sample.held_down is not None]
        first, last = self._energy
        return Machine(
            load_average=_load_average(),
            clock_mhz=statistics.median(clocks) if clocks else None,
            temperature_c=max(heat, default=None),
            power_watts=statistics.fmean(power) if power else None,
            energy_joules=None if first is None or last is None else last - first,
            throttled_share=sum(held) / len(held) if held else None,
            foreign_processes=num_foreign(self._processes, own=os.getpid(), present=torch.cuda.is_initialized()),
        )

    def _watch(self, gauge: Gauge) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self._look(gauge)

    def _look(self, gauge: Gauge) -> None:
        if len(self._samples) % _SAMPLES_PER_LISTING == 0:
            self._list(gauge)
        self._samples.append(_Sample(gauge.clock_mhz(), gauge.temperature_c(), gauge.power_watts(), gauge.held_down()))
        self._energy = (self._energy[0], gauge.energy_joules())

    def _list(self, gauge: Gauge) -> None:
        found = gauge.processes()
        if found is not None:
            self._processes = (self._processes or set()) | set(found)


def num_foreign(seen: set[int] | None, *, own: int, present: bool) -> int | None:
    """Processes on the device other than this one.

    In a container the driver may list this process under its number outside, or list nothing at all.

    Args:
        seen: numbers of all processes seen, None when they could not be listed.
        own: number of this process.
        present: whether this process uses the device.
    """
    if seen is None or (present and not seen):
        return None
    return len(seen) - (own in seen or present)


def _load_average() -> float | None:
    with contextlib.suppress(OSError):  # some sandboxes do not say
        return round(os.getloadavg()[0], 2)
    return None
