"""The canary: the same work every time, whatever its length."""

from __future__ import annotations

import pytest
import torch
from asynchronous_device import AsynchronousDevice
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.timing.canary import WORK, canary, unit_of
from genbench.timing.clock import DeviceClock
from genbench.timing.counters import count

CPU = torch.device("cpu")


class OnFalseDevice(TorchDispatchMode):
    """Lets every operator take 2 ms on a false device."""

    def __init__(self, device: AsynchronousDevice) -> None:
        super().__init__()
        self.device, self.calls = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() in {"aten::mm", "aten::convolution"}:
            self.device.launch(0.002, host_seconds=0.0)
            self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("seconds", [0.04, 0.1])
def test_canaries_of_different_lengths_give_the_time_of_the_same_unit(seconds):
    device = AsynchronousDevice()
    with OnFalseDevice(device) as work:
        assert canary(device, CPU, seconds=seconds) == pytest.approx(0.004)
    assert device.host_time - 100 >= seconds
    assert work.calls * 0.002 < 3 * seconds + 0.02


def test_no_seconds_no_canary():
    assert canary(DeviceClock(CPU), CPU, seconds=0.0) is None


def test_a_unit_is_as_many_flops_as_its_sizes_say():
    work = WORK["cpu"]
    product = 2 * work.matrix_side**3
    convolution = 2 * work.batch * work.side**2 * work.channels**2 * 9
    assert count(unit_of(work, CPU), parameters=0).flops == product + convolution


def test_the_canary_leaves_the_random_stream_alone():
    before = torch.get_rng_state()
    assert canary(DeviceClock(CPU), CPU, seconds=0.01) > 0
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.gpu
def test_canaries_on_a_device_agree():
    device = torch.device("cuda")
    clock = DeviceClock(device)
    first, second = (canary(clock, device, seconds=1.0) for _ in range(2))
    assert first == pytest.approx(second, rel=0.03)
