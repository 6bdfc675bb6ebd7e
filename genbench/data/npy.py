"""A `.npy` file of images: `npy:PATH`, mapped into memory, so that only the rows that are asked for are read.

The array is (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels: whole numbers 0 .. 255, or floats with
the setting `value_range`, rounded to the nearest level. All images belong to one split, `train`: the file is for
samples and for references. Pickled objects are never opened.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from genbench.core.dataset import register_dataset
from genbench.core.errors import DataError
from genbench.data._arrays import DAMAGE, ArrayContent, ImageArray, StoredImages, ValueRange
from genbench.data._files import Stamp, cached, existing


@register_dataset("npy")
@dataclass(frozen=True)
class Npy(ImageArray):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    kind: ClassVar[str] = "npy"

    def content(self) -> ArrayContent:
        """The images, read row by row."""
        return ArrayContent(_mapped(*existing(self.path, "npy"), self.value_range))

    def fingerprint(self) -> str:
        """Digest of every image as it is read, rounding included."""
        return _fingerprint(*existing(self.path, "npy"), self.value_range)


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
