"""Counts of a call that is warm, with what other counts must share to be compared with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from genbench.core.bench import Counters
from genbench.timing.counters import count


def counted_call(call: Callable[[], object], *, parameters: int) -> tuple[Counters, str]:
    """Counts of the second of two calls, and the versions that they hold for.

    What only a first call makes, such as moments of an optimiser or caches, is left out: whether a call is the first
    may depend on what ran before.

    Args:
        call: runs twice.
        parameters: of the model, for the record.
    """
    call()
    before = _cuda_allocations()
    found = count(call, parameters=parameters)
    return found, versions("cuda" if _cuda_allocations() > before else "cpu")


def versions(device_type: str) -> str:
    """What two counts must share: the torch and the kind of device. The build of torch (`+cpu`) counts alike."""
    return f"torch {torch.__version__.partition('+')[0]}, {device_type}"


def _cuda_allocations() -> int:
    """Pieces of device memory that have been given to tensors so far."""
    cuda = cast("Any", torch.cuda)  # a part without annotations
    if not cuda.is_initialized():
        return 0
    given = (cuda.memory_stats(device).get("allocation.all.allocated", 0) for device in range(cuda.device_count()))
    return sum(int(pieces) for pieces in given)
