"""Checks at the door of every dataset: the split and the indices that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genbench.core.dataset import Split


def checked_split(split: Split, splits: tuple[Split, ...], *, owner: str) -> Split:
    """The split, if it is one of `splits`.

    Raises:
        ValueError: it is not.
    """
    if split not in splits:
        raise ValueError(f"{owner} has no split `{split}`, expected {' or '.join(splits)}")
    return split


def checked_indices(indices: Sequence[int] | np.ndarray, *, size: int | None, owner: str) -> np.ndarray:
    """The indices as (N,) int64.

    Args:
        indices: whole numbers, in any order, repeats allowed.
        size: number of examples there are, None when there is no end to them.
        owner: what is indexed, for the message.

    Raises:
        IndexError: an index is negative, not below `size`, or no whole number.
    """
    asked = np.asarray(indices)
    if asked.size == 0:
        return np.zeros(0, dtype=np.int64)
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise IndexError(f"{owner}: indices are {asked.dtype} of shape {asked.shape}, expected a list of whole numbers")
    end = np.iinfo(np.int64).max if size is None else size
    outside = asked[(asked < 0) | (asked >= end)]
    if outside.size:
        bound = "must not be negative" if size is None else f"expected 0 .. {size - 1}" if size else "it is empty"
        raise IndexError(f"{owner}: index {outside[0]} is out of range, {bound}")
    return asked.astype(np.int64)
