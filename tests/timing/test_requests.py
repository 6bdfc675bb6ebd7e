"""Requests come one after the other, each with a seed of its own."""

from __future__ import annotations

import pytest
from asynchronous_device import AsynchronousDevice

from genbench.core.bench import EFFORTS
from genbench.timing.requests import timed_requests

EFFORT = EFFORTS["smoke"].model_copy(update={"requests": 7, "request_seconds": 0.0})


def _requests(device_seconds: float, effort):
    device, seeds, idle = AsynchronousDevice(), [], []

    def request(seed: int) -> None:
        seeds.append(seed)
        idle.append(device.free_at <= device.host_time)
        device.launch(device_seconds, host_seconds=0.001)

    return timed_requests(request, device, first_seed=1000, effort=effort), seeds, idle


def test_every_request_has_a_new_seed_and_finds_the_device_idle():
    taken, seeds, idle = _requests(0.05, EFFORT)
    assert seeds == list(range(1000, 1007))
    assert all(idle)
    assert taken == pytest.approx([0.051] * 7)


def test_quick_requests_are_repeated_for_the_seconds_that_are_asked():
    taken, seeds, _ = _requests(0.009, EFFORT.model_copy(update={"request_seconds": 1.0}))
    assert len(taken) == len(set(seeds)) == 100
