"""Chains that energy-based models keep from one update to the next."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def drawn_from(
    chains: Tensor, num: int, *, fresh_share: float, fresh: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Rows of some chains, each at most once, and where they start: (M,) int64 and (M, ...), M at most `num`.

    All is drawn from the global stream, as training does. Who moves the chains stores them under the rows.

    Args:
        chains: (N, ...), the buffer.
        num: how many are wanted; all of a smaller buffer.
        fresh_share: probability with which a chain starts afresh.
        fresh: new starting points in place of (M, ...) old ones.
    """
    rows = torch.randperm(len(chains), device=chains.device)[:num]
    start = chains[rows]
    anew = torch.rand(len(start), *[1] * (start.ndim - 1), device=start.device) < fresh_share
    return rows, torch.where(anew, fresh(start), start)
