"""What a record says of the machine."""

import os

import pytest
import torch

from genbench.harness.environment import environment


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process can be bound to processors here")
def test_processors_are_those_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert environment(torch.device("cpu")).processors == 1
    finally:
        os.sched_setaffinity(0, before)
    assert environment(torch.device("cpu")).processors == len(before)
