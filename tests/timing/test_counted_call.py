"""Counts of warm calls."""

from __future__ import annotations

import functools

import torch

from genbench.timing.counted_call import counted_call, versions


def test_a_call_is_counted_as_if_it_had_run_before():
    @functools.cache
    def table():
        return torch.ones(4, 4) @ torch.ones(4, 4)

    found, _ = counted_call(lambda: table() + 1, parameters=7)
    assert (found.operators, found.flops, found.parameters) == (1, 0, 7)


def test_the_versions_name_torch_without_its_build_and_the_device_that_worked():
    _, found = counted_call(lambda: torch.ones(2) + 1, parameters=0)
    assert found == versions("cpu") == f"torch {torch.__version__.split('+')[0]}, cpu"
