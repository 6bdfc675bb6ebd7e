"""What the plain functions of metrics take: arrays, lists or tensors, checked in one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Features = np.ndarray | Tensor | Sequence[Sequence[float]]
"""(N, F) rows of numbers. Single and double precision are kept, half is promoted to single, all else to double."""

_HALF = (torch.float16, torch.bfloat16)
_NUMBERS = "biuf"  # kinds of numpy types


def finite_features(**sets: Features) -> tuple[Tensor, ...]:
    """Sets of features by the name of their argument, as finite float tensors of one width.

    Raises:
        ValueError: one is no matrix of numbers or not finite, or the widths differ.
    """
    found = tuple(finite_rows(values, name=name) for name, values in sets.items())
    widths = [part.shape[1] for part in found]
    if len(set(widths)) > 1:
        listed = ", ".join(f"{width} in `{name}`" for name, width in zip(sets, widths, strict=True))
        raise ValueError(f"found {listed} features of a row, expected sets of one width")
    return found


def finite_rows(values: Features, *, name: str, what: str = "features") -> Tensor:
    """One set as a finite float tensor (N, F), on its device; a float tensor is not copied.

    Args:
        values: the set.
        name: of the argument, for the message.
        what: a row holds, for the message.

    Raises:
        ValueError: it is no matrix of numbers, or not finite.
    """
    rows = _as_tensor(values, name=name, what=what)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"`{name}` has shape {tuple(rows.shape)}, expected {what} (N, F) of N rows, F at least 1")
    # One NaN or infinity makes a sum that is not finite; finite numbers whose sum overflows are looked at again.
    if not bool(rows.sum().isfinite()):
        broken = int((~rows.isfinite()).any(dim=1).sum())
        if broken:
            raise ValueError(
                f"`{name}` has NaN or infinity in {broken} of {len(rows)} rows, expected finite {what} in all"
            )
    return rows


def _as_tensor(values: Features, *, name: str, what: str) -> Tensor:
    if isinstance(values, Tensor):
        if values.is_complex():
            raise ValueError(f"`{name}` is a tensor of {values.dtype}, expected real {what}")
        found = values.detach() if values.requires_grad else values
    else:
        found = torch.from_numpy(_as_array(values, name=name, what=what))
    if found.dtype in _HALF:
        return found.float()
    return found if found.dtype in (torch.float32, torch.float64) else found.double()


def _as_array(values: np.ndarray | Sequence[Sequence[float]], *, name: str, what: str) -> np.ndarray:
    """An array that torch can share: of its own float type, or of double precision."""
    try:
        found = np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"`{name}` is no matrix ({error}), expected {what} (N, F)") from error
    if found.dtype.kind not in _NUMBERS:
        raise ValueError(f"`{name}` is an array of {found.dtype}, expected {what} as numbers (N, F)")
    shared = found.dtype in (np.float16, np.float32, np.float64) and found.dtype.isnative
    if not shared:
        half = found.dtype.kind == "f" and found.dtype.itemsize <= np.dtype(np.float32).itemsize
        return found.astype(np.float32 if half else np.float64)
    if not found.flags.writeable or min(found.strides, default=0) < 0:  # torch warns of the one, refuses the other
        return found.copy()
    return found
