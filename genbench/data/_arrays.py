"""Arrays of images from files: what is taken for images, and how floats become whole numbers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from genbench.core.errors import DataError

ValueRange = Literal["uint8", "unit", "signed"]
"""What stored values mean: whole numbers 0 .. 255, floats in [0, 1], floats in [-1, 1]."""
_TOLERANCE = 1e-3  # beyond rounding to half precision at 1


def as_images(array: np.ndarray, where: str, levels: int = 256) -> np.ndarray:
    """Images as (N, C, H, W) uint8, channels found by their number.

    Raises:
        DataError: other types, values outside 0 .. levels-1, or a shape that is no images'.
    """
    if array.dtype.kind not in "iu":
        hint = "store whole numbers, e.g. `np.round(x * 255).astype(np.uint8)`"
        raise DataError(f"{where} is {array.dtype}, expected whole numbers 0 .. {levels - 1}", hint=hint)
    if array.size and (array.min() < 0 or array.max() >= levels):
        hint = "set `levels`, or check how the file was made"
        raise DataError(f"{where} holds {array.min()} .. {array.max()}, expected 0 .. {levels - 1}", hint=hint)
    if array.ndim == 3:
        return np.ascontiguousarray(array[:, None], dtype=np.uint8)
    ordered = array if channels_first(array.shape, where) else array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(ordered, dtype=np.uint8)


def channels_first(shape: tuple[int, ...], where: str) -> bool:
    """Whether channels come before the pixels in (N, C, H, W), not after them as in (N, H, W, C).

    Raises:
        DataError: the shape is no images', or both readings fit.
    """
    first, last = (len(shape) == 4 and shape[place] in (1, 3) for place in (1, 3))
    if first == last:
        problem = "ambiguous" if first else "no images"
        raise DataError(f"{where} of shape {shape} is {problem}, expected (N, H, W[, C]) or (N, C, H, W)")
    return first


def whole_numbers(array: np.ndarray, value_range: ValueRange, where: str) -> np.ndarray:
    """Values as whole numbers 0 .. 255, floats rounded to the nearest.

    Raises:
        DataError: values that are not finite, or not in the range that they are said to be in.
    """
    if value_range == "uint8":
        if array.dtype.kind == "f":
            low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
            raise DataError(
                f"{where} holds floats {low:.4g} .. {high:.4g}, expected whole numbers 0 .. 255",
                hint="say what they mean: `value_range=unit` for 0 .. 1, `value_range=signed` for -1 .. 1",
            )
        return array
    if not np.isfinite(array).all():
        raise DataError(f"{where} holds NaN or infinity, all values must be finite")
    least = 0.0 if value_range == "unit" else -1.0
    if array.size and (array.min() < least - _TOLERANCE or array.max() > 1.0 + _TOLERANCE):
        raise DataError(f"{where} holds {array.min():.4g} .. {array.max():.4g}, expected {least:g} .. 1")
    scaled = array * 255.0 if value_range == "unit" else (array + 1.0) * 127.5
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def refuse_unsigned(lowest: float, value_range: ValueRange, where: str) -> None:
    """Refuse a whole file that is said to lie in [-1, 1] and has no value below 0.

    Raises:
        DataError: that is so; half of every picture's range would be lost.
    """
    if value_range == "signed" and lowest >= 0.0:
        raise DataError(
            f"{where} has no value below 0, though it is said to lie in -1 .. 1",
            hint="`value_range=unit` is for values in 0 .. 1",
        )
