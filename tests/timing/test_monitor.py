"""The monitor reads what the driver says, survives what it refuses, and disturbs nothing."""

# ruff: noqa: N802 - the library's own names

from __future__ import annotations

import dataclasses
import os
import threading
import time

import pytest
import torch

from genbench.timing._nvml import Gauge, gauge_of, open_gauge
from genbench.timing.monitor import Monitor, num_foreign

CPU = torch.device("cpu")
OWN = os.getpid()


class NVMLError(Exception):
    """Stands in for the library's."""


@dataclasses.dataclass
class Process:
    """A process as the library lists it."""

    pid: int
    usedGpuMemory: int | None = 2**20  # noqa: N815


class Library:
    """Stands in for `pynvml`: the few functions that are used, with answers in turn."""

    NVMLError = NVMLError

    def __init__(self, *, refuses: frozenset[str] = frozenset()) -> None:
        self.refuses, self.asked = refuses, []
        self.energy = 5_000_000  # mJ
        self.clocks = iter([1000, 1980, 1970] + [1980] * 1000)
        self.reasons = iter([0x40, 0x1, 0x4] + [0x4] * 1000)  # heat, idle, power cap
        self.processes = [Process(OWN)]

    def _answer(self, name: str) -> None:
        self.asked.append(name)
        if name in self.refuses:
            raise NVMLError(name)

    def nvmlInit(self) -> None:
        self._answer("init")

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> object:
        self._answer("handle")
        if uuid != b"GPU-1234":
            raise NVMLError("not found")
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle, kind) -> int:
        self._answer("clock")
        assert (handle, kind) == ("handle", 1)
        return next(self.clocks)

    def nvmlDeviceGetTemperature(self, handle, sensor) -> int:
        self._answer("temperature")
        return 40 + len([name for name in self.asked if name == "temperature"])

    def nvmlDeviceGetPowerUsage(self, handle) -> int:
        self._answer("power")
        return 300_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle) -> int:
        self._answer("energy")
        self.energy += 30_000
        return self.energy

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle) -> int:
        self._answer("throttle")
        return next(self.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        self._answer("processes")
        return list(self.processes)


EVERYTHING = frozenset({"clock", "temperature", "power", "energy", "throttle", "processes"})


def _gauge(library: Library) -> Gauge:
    gauge = gauge_of("1234", library)
    assert gauge is not None
    return gauge


def test_a_round_is_watched_five_times_a_second_from_its_beginning_to_its_end():
    library = Library()
    before = time.perf_counter()
    with Monitor(CPU, gauge=_gauge(library)) as monitor:
        time.sleep(0.5)
    seconds = time.perf_counter() - before
    found = monitor.reading()
    looks = library.asked.count("clock")
    assert 3 <= looks <= 2 + seconds / 0.2  # at once, five times a second, and at the end
    assert found.clock_mhz == pytest.approx(1975, abs=5)  # the median, not the slow beginning
    assert found.temperature_c == 40 + looks  # the highest, which is the last
    assert found.power_watts == 300.0
    assert found.energy_joules == 30.0 * looks  # one reading on entering, then one with each look
    assert found.throttled_share == pytest.approx(1 / looks)  # heat once; idleness and a power cap are no fault
    assert found.foreign_processes == 0


def test_watching_ends_with_the_round():
    library, threads = Library(), threading.active_count()
    with Monitor(CPU, gauge=_gauge(library)):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    asked = len(library.asked)
    time.sleep(0.25)
    assert len(library.asked) == asked


def test_another_process_on_the_device_is_seen_though_it_is_gone_at_the_end():
    library = Library()
    library.processes.append(Process(OWN + 1))
    with Monitor(CPU, gauge=_gauge(library)) as monitor:
        library.processes.pop()
    assert monitor.reading().foreign_processes == 1


def test_processes_are_listed_less_often_than_the_rest():
    library = Library()
    with Monitor(CPU, gauge=_gauge(library)):
        time.sleep(0.5)
    listings, looks = library.asked.count("processes"), library.asked.count("clock")
    assert listings == 1 + -(-looks // 5) < looks  # with every fifth look, and at the end


@pytest.mark.parametrize("refused", sorted(EVERYTHING))
def test_one_refused_question_leaves_the_other_answers(refused):
    fields = {
        "clock": "clock_mhz",
        "temperature": "temperature_c",
        "power": "power_watts",
        "energy": "energy_joules",
        "throttle": "throttled_share",
        "processes": "foreign_processes",
    }
    with Monitor(CPU, gauge=_gauge(Library(refuses=frozenset({refused})))) as monitor:
        pass
    found = monitor.reading()
    assert {name for name, field in fields.items() if found.model_dump()[field] is None} == {refused}


def test_a_driver_that_answers_nothing_fails_nothing():
    with Monitor(CPU, gauge=_gauge(Library(refuses=EVERYTHING))) as monitor:
        time.sleep(0.25)
    assert monitor.reading().model_dump(exclude={"load_average"}, exclude_none=True) == {}


class OlderLibrary(Library):
    """A version that has one function less."""

    def __getattribute__(self, name: str) -> object:
        if name == "nvmlDeviceGetPowerUsage":
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_a_library_without_a_function_fails_nothing():
    gauge = _gauge(OlderLibrary())
    assert gauge.power_watts() is None
    assert gauge.clock_mhz() == 1000


@pytest.mark.parametrize("refused", ["init", "handle"])
def test_a_driver_that_cannot_be_reached_gives_no_gauge(refused):
    assert gauge_of("1234", Library(refuses=frozenset({refused}))) is None


def test_a_device_the_driver_does_not_know_gives_no_gauge():
    assert gauge_of("slice", Library()) is None


def test_a_cpu_is_watched_without_a_thread():
    assert open_gauge(CPU) is None
    before = threading.active_count()
    with Monitor(CPU) as monitor:
        assert threading.active_count() == before
    found = monitor.reading()
    assert found.load_average == pytest.approx(os.getloadavg()[0], abs=1.0)
    assert found.model_dump(exclude={"load_average"}, exclude_none=True) == {}


@pytest.mark.parametrize(
    ("seen", "present", "foreign"),
    [
        (None, True, None),  # cannot be listed
        (set(), False, 0),
        (set(), True, None),  # the list hides at least this process
        ({OWN}, True, 0),
        ({OWN, 5}, True, 1),
        ({OWN + 1}, True, 0),  # this process under its number outside a container
        ({OWN + 1, OWN + 2}, True, 1),
        ({OWN + 1}, False, 1),  # not this process, which does not use the device
    ],
)
def test_this_process_is_not_foreign_under_whatever_number(seen, present, foreign):
    assert num_foreign(seen, own=OWN, present=present) == foreign


@pytest.mark.gpu
def test_a_busy_device_draws_power():
    pytest.importorskip("pynvml")
    device = torch.device("cuda")
    a = torch.randn(4096, 4096, device=device)
    with Monitor(device) as monitor:
        end = time.perf_counter() + 1.0
        while time.perf_counter() < end:
            a @ a
            torch.cuda.synchronize()
    found = monitor.reading()
    assert found.clock_mhz > 100
    assert found.power_watts > 20
    assert found.energy_joules is None or found.energy_joules > 10
