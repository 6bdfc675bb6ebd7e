"""A `.npy` file of images: `npy:PATH`, read row by row.

The array is (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels: whole numbers 0 .. 255, or floats with
the setting `value_range`, rounded to the nearest level. All images belong to one split, `train`: the file is for
samples and for references. Pickled objects are never opened.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._arrays import ValueRange, as_images, channels_first, refuse_unsigned, whole_numbers

SPLITS: tuple[Split, ...] = ("train",)
_ROWS = 4096  # rows looked at together when a whole file is


@register_dataset("npy")
@dataclass(frozen=True)
class Npy(Dataset):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    takes_argument = True
    source = "the user's"

    path: str
    """The file; `~` is the home folder."""
    value_range: ValueRange = "uint8"
    """`uint8` for whole numbers 0 .. 255, `unit` for floats in [0, 1], `signed` for floats in [-1, 1]."""

    @property
    def spec(self) -> DataSpec:
        """Shape as found in the file, 256 levels."""
        shape = self._array().shape
        if len(shape) == 3:
            return DataSpec(shape=(1, *shape[1:]))
        first = channels_first(shape, self._where)
        return DataSpec(shape=shape[1:] if first else (shape[3], *shape[1:3]))

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner=self._where)
        return len(self._array())

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at the given rows of the file."""
        rows = checked_indices(indices, size=self.size(split), owner=self._where)
        if self.value_range == "signed":
            refuse_unsigned(self._lowest(), self.value_range, self._where)
        values = whole_numbers(np.asarray(self._array()[rows]), self.value_range, self._where)
        return Batch(x=torch.from_numpy(as_images(values, self._where)))

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Rows of the file."""
        return [f"{index:08d}" for index in indices]

    def fingerprint(self) -> str:
        """Digest of the meaning and of every value."""
        array = self._array()
        content = hashlib.sha256(f"npy {self.value_range} {array.dtype} {array.shape}".encode())
        for start in range(0, len(array), _ROWS):
            content.update(np.ascontiguousarray(array[start : start + _ROWS]).tobytes())
        return content.hexdigest()[:16]

    @property
    def _where(self) -> str:
        return f"npy:{self.path}"

    def _lowest(self) -> float:
        array = self._array()
        return min(float(array[start : start + _ROWS].min()) for start in range(0, len(array), _ROWS))

    def _array(self) -> np.ndarray:
        path = Path(self.path).expanduser().absolute()
        if not path.is_file():
            raise DataError(f"{self._where}: there is no file {path}", hint="check the path")
        return _mapped(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _mapped(path: Path, modified: int) -> np.ndarray:
    """The array, mapped from the file; `modified` makes a file that was written again a new entry of the cache."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        hint = "write one plain array with `np.save`; pickled objects can run code and are not opened"
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from error
    if array.ndim not in (3, 4) or array.dtype.kind not in "iuf" or len(array) == 0:
        hint = "features of shape (N, F) are scored with `--features given`"
        raise DataError(f"{path}: {array.dtype} of shape {array.shape}, expected images (N, H, W[, C])", hint=hint)
    return np.asanyarray(array)
