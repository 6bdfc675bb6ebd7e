"""Arrays of images from files: what is taken for images, how floats become whole numbers, reading only some rows.

And what the files have in common that hold one such array.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tokenize import TokenError
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._files import SPLITS

ValueRange = Literal["uint8", "unit", "signed"]
"""What stored values mean: whole numbers 0 .. levels-1, floats in [0, 1], floats in [-1, 1]."""
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
    OverflowError,
    SyntaxError,
    TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and its parts raise at files whose bytes are damaged: headers are read as Python literals."""
_TOLERANCE = 1e-3  # beyond rounding to half precision at 1
_BLOCK_BYTES = 1 << 24  # of an array looked at together when the whole of it is


class Extremes(NamedTuple):
    """Least and greatest value of an array; NaN where a value is."""

    lowest: float
    highest: float
    whole: bool = False
    """They are floats, and each is a whole number."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images in an array, which may be mapped from a file: rows are read when they are asked for.

    Whole numbers keep their values; floats x become round(255 x) or round(127.5 (x + 1)), to the nearest level.

    Raises:
        DataError: the array holds no images; later, when rows are read, values outside their range.
    """

    array: np.ndarray
    """(N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels."""
    where: str
    """For messages."""
    value_range: ValueRange = "uint8"
    levels: int = 256

    def __post_init__(self) -> None:
        array = self.array
        if array.dtype.kind not in "iuf":
            hint = "store whole numbers, e.g. `np.round(x * 255).astype(np.uint8)`"
            raise DataError(f"{self.where} is {array.dtype}, expected whole numbers or floats", hint=hint)
        if array.ndim not in (3, 4) or 0 in array.shape[1:]:
            hint = "features of shape (N, F) are scored with `--features given`"
            raise DataError(
                f"{self.where}: no images in shape {array.shape}, expected images (N, H, W[, C])", hint=hint
            )
        if array.ndim == 4:
            channels_first(array.shape, self.where)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        shape = self.array.shape
        if len(shape) == 3:
            return 1, shape[1], shape[2]
        return (shape[1], shape[2], shape[3]) if channels_first(shape, self.where) else (shape[3], shape[1], shape[2])

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Images at the given rows: (n, C, H, W) uint8, the caller's own.

        Raises:
            DataError: some value of the array, in any row, cannot be meant.
        """
        _ = self._checked  # every value of the file, once
        return self._ordered(self._levels(np.array(self.array[rows])))

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The same a few at a time."""
        for start in range(0, len(rows), self._step):
            yield self.rows(rows[start : start + self._step])

    def digest(self) -> bytes:
        """SHA-256 of the images as they are read, of their shape and of what values mean."""
        content = hashlib.sha256(f"{self.shape} {self.levels} {self.value_range} nearest".encode())
        for block in self.blocks(np.arange(len(self))):
            content.update(block.tobytes())
        return content.digest()

    @property
    def _step(self) -> int:
        return max(1, _BLOCK_BYTES // max(1, self.array[:1].nbytes))

    @functools.cached_property
    def _checked(self) -> Extremes | None:
        """Extremes of the whole array, found to be in range; None where no value can be outside."""
        if not len(self) or (self.array.dtype == np.uint8 and self.levels == 256 and self.value_range == "uint8"):
            return None
        low, high = zip(*((float(block.min()), float(block.max())) for block in self._stored()), strict=True)
        whole = self.array.dtype.kind == "f" and all(bool((np.rint(block) == block).all()) for block in self._stored())
        found = Extremes(float(np.min(low)), float(np.max(high)), whole)  # NaN stays NaN
        check_range(found, self.array.dtype, self.value_range, self.levels, self.where)
        return found

    def _stored(self) -> Iterator[np.ndarray]:
        """The array as it is, a few images at a time."""
        return (self.array[start : start + self._step] for start in range(0, len(self), self._step))

    def _levels(self, values: np.ndarray) -> np.ndarray:
        if self.value_range == "uint8":
            return values
        wide = values.astype(np.result_type(values.dtype, np.float32))  # half precision would round twice
        if self.value_range == "signed":
            wide += 1.0
        wide *= 255.0 if self.value_range == "unit" else 127.5
        return np.clip(np.rint(wide, out=wide), 0, 255, out=wide)

    def _ordered(self, values: np.ndarray) -> np.ndarray:
        if values.ndim == 3:
            first = values[:, None]
        else:
            first = values if channels_first(self.array.shape, self.where) else values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(first, dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class ArrayContent:
    """What a file with one array of images holds."""

    images: StoredImages
    labels: np.ndarray | None = None
    """(N,) int64."""


@dataclass(frozen=True)
class ImageArray(Dataset):
    """Images in one array; (1 or 3, H, W), values 0 .. 255, all in the split `train`."""

    takes_argument = True
    source = "the user's"
    kind: ClassVar[str]
    """Registered name, for messages."""

    path: str
    """The file; `~` is the home folder."""
    value_range: ValueRange = "uint8"
    """`uint8` for whole numbers 0 .. 255, `unit` for floats in [0, 1], `signed` for floats in [-1, 1]."""

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the file, 256 levels."""
        content = self.content()
        num_classes = 0 if content.labels is None else int(content.labels.max()) + 1
        return DataSpec(shape=content.images.shape, num_classes=num_classes)

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    @abstractmethod
    def content(self) -> ArrayContent:
        """What the file holds."""

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner=self._owner)
        return len(self.content().images)

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at the given rows of the array, with labels where there are any."""
        rows = self._rows(split, indices)
        return Batch(x=torch.from_numpy(self.content().images.rows(rows)), y=self.labels(split, rows))

    def labels(self, split: Split, indices: Sequence[int] | np.ndarray) -> Tensor | None:
        """Classes, without reading a picture."""
        rows, labels = self._rows(split, indices), self.content().labels
        return None if labels is None else torch.from_numpy(labels[rows])

    def captions(self, split: Split, indices: Sequence[int] | np.ndarray) -> None:
        """None: such a file has no captions."""

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Rows of the array, padded so that their order as text is the file's."""
        return [f"{row:08d}" for row in self._rows(split, indices)]

    @property
    def _owner(self) -> str:
        return f"{self.kind}:{self.path}"

    def _rows(self, split: Split, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return checked_indices(indices, size=self.size(split), owner=self._owner)


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


def check_range(found: Extremes, kind: np.dtype, value_range: ValueRange, levels: int, where: str) -> None:
    """Refuse values that cannot mean what they are said to mean.

    Raises:
        DataError: floats without a meaning, values that are not finite or outside their range, or values in [0, 1] that
            are said to lie in [-1, 1], which would halve the contrast of every picture.
    """
    spread = f"{found.lowest:.4g} .. {found.highest:.4g}"
    if not np.isfinite(found).all():
        raise DataError(f"{where} holds NaN or infinity, all values must be finite", hint="check how the file was made")
    if value_range == "uint8":
        _check_whole(found, kind, levels, where)
        return
    least = 0.0 if value_range == "unit" else -1.0
    if found.lowest < least - _TOLERANCE or found.highest > 1.0 + _TOLERANCE:
        raise DataError(
            f"{where} holds {spread}, expected {least:g} .. 1 for `value_range={value_range}`",
            hint=_advice(found, where),
        )
    if value_range == "signed" and found.lowest >= 0.0:
        raise DataError(
            f"{where} has no value below 0 ({spread}), though it is said to lie in -1 .. 1",
            hint=f"values in 0 .. 1 are read as {_setting('unit', where)}",
        )


def _check_whole(found: Extremes, kind: np.dtype, levels: int, where: str) -> None:
    if kind.kind == "f" and found.whole and found.lowest >= 0 and 1 < found.highest < levels:
        raise DataError(
            f"{where} holds whole numbers {found.lowest:.0f} .. {found.highest:.0f} stored as floats ({kind}), "
            "expected a type of whole numbers",
            hint=_advice(found, where),
        )
    if kind.kind == "f":
        raise DataError(
            f"{where} holds floats {found.lowest:.4g} .. {found.highest:.4g}, expected whole numbers 0 .. {levels - 1}",
            hint=_advice(found, where),
        )
    if found.lowest < 0 or found.highest >= levels:
        hint = "reduce the values to 8 bits, and say how" if levels == 256 else "set `levels`"
        spread = f"{found.lowest:.0f} .. {found.highest:.0f}"
        raise DataError(f"{where} holds {spread}, expected 0 .. {levels - 1}", hint=hint)


def _setting(value_range: ValueRange, where: str) -> str:
    """The file with the setting, as it is to be written: an `.npz` names its array behind the path."""
    return f"`{where.partition(': `')[0]}[value_range={value_range}]`"


def _advice(found: Extremes, where: str) -> str:
    """What to do about values, by the range in which they lie."""
    if found.lowest >= 0.0 and found.highest <= 1.0 + _TOLERANCE:
        return f"values in 0 .. 1 are read as {_setting('unit', where)}"
    if found.lowest >= -1.0 - _TOLERANCE and found.highest <= 1.0 + _TOLERANCE:
        return f"values in -1 .. 1 are read as {_setting('signed', where)}"
    if found.whole and found.lowest >= 0.0 and found.highest <= 255.0:
        return "store them as `x.astype(np.uint8)`, which loses nothing; without `value_range`"
    if found.lowest >= 0.0 and found.highest <= 255.0:
        return "if they mean 0 .. 255, store them as `np.round(x).astype(np.uint8)`; without `value_range`"
    unit, signed = _setting("unit", where), _setting("signed", where)
    return f"clip them to the range that they mean first: 0 .. 1 is read as {unit}, -1 .. 1 as {signed}"
