"""A `.npy` file of images: `npy:PATH`, mapped into memory, so that only the rows that are asked for are read.

The array is (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels: whole numbers 0 .. 255, or floats with
the setting `value_range`, rounded to the nearest level. All images belong to one split, `train`: the file is for
samples and for references. Pickled objects are never opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._archive import SPLITS, Stamp, cached, existing
from genbench.data._arrays import DAMAGE, StoredImages, ValueRange


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
        return DataSpec(shape=self._images().shape)

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner=f"npy:{self.path}")
        return len(self._images())

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at the given rows of the file."""
        rows = checked_indices(indices, size=self.size(split), owner=f"npy:{self.path}")
        return Batch(x=torch.from_numpy(self._images().rows(rows)))

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Rows of the file, padded so that their order as text is the file's."""
        rows = checked_indices(indices, size=self.size(split), owner=f"npy:{self.path}")
        return [f"{row:08d}" for row in rows]

    def fingerprint(self) -> str:
        """Digest of every image as it is read, rounding included."""
        return _fingerprint(*existing(self.path, "npy"), self.value_range)

    def _images(self) -> StoredImages:
        return _mapped(*existing(self.path, "npy"), self.value_range)


@cached
def _mapped(path: Path, stamp: Stamp, value_range: ValueRange) -> StoredImages:
    """The images of the file, read row by row.

    Raises:
        DataError: it is damaged, pickled, or holds no images.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        hint = "write one plain array with `np.save`; pickled objects can run code and are not opened"
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: an archive of arrays, expected a single one", hint="name the file `*.npz`")
    if len(array.shape) and not len(array):
        raise DataError(f"{path}: no images in shape {array.shape}")
    return StoredImages(array, str(path), value_range)


@cached
def _fingerprint(path: Path, stamp: Stamp, value_range: ValueRange) -> str:
    return hashlib.sha256(b"npy " + _mapped(path, stamp, value_range).digest()).hexdigest()[:16]
