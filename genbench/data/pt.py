"""A `.pt` file of images: `pt:PATH`, a tensor or a dictionary with a tensor of images.

The tensor is (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels: whole numbers 0 .. 255, or floats with
the setting `value_range`, rounded to the nearest level. In a dictionary it is called `images`, `samples` or `x`, or is
the only tensor that there is; class labels are called `labels` or `y`. All images belong to one split, `train`: the
file is for samples and for references. Only tensors are read (`weights_only=True`), no pickled objects; they are mapped
into memory where the file's form permits, so that only the rows that are asked for are read.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._archive import SPLITS, Stamp, cached, existing
from genbench.data._arrays import DAMAGE, StoredImages, ValueRange

NAMES = ("images", "samples", "x")
LABELS = ("labels", "y")
_HINT = "write a tensor with `torch.save(images, path)`; pickled objects can run code and are not opened"


@dataclass(frozen=True, eq=False)
class _Content:
    images: StoredImages
    labels: np.ndarray | None
    """(N,) int64."""


@register_dataset("pt")
@dataclass(frozen=True)
class Pt(Dataset):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    takes_argument = True
    source = "the user's"

    path: str
    """The file; `~` is the home folder."""
    value_range: ValueRange = "uint8"
    """`uint8` for whole numbers 0 .. 255, `unit` for floats in [0, 1], `signed` for floats in [-1, 1]."""

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the file, 256 levels."""
        content = self._content()
        num_classes = 0 if content.labels is None else int(content.labels.max()) + 1
        return DataSpec(shape=content.images.shape, num_classes=num_classes)

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner=f"pt:{self.path}")
        return len(self._content().images)

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at the given rows of the tensor, with labels where there are any."""
        rows = checked_indices(indices, size=self.size(split), owner=f"pt:{self.path}")
        content = self._content()
        labels = None if content.labels is None else torch.from_numpy(content.labels[rows])
        return Batch(x=torch.from_numpy(content.images.rows(rows)), y=labels)

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Rows of the tensor, padded so that their order as text is the file's."""
        rows = checked_indices(indices, size=self.size(split), owner=f"pt:{self.path}")
        return [f"{row:08d}" for row in rows]

    def fingerprint(self) -> str:
        """Digest of every image as it is read, rounding included, and of every label."""
        return _fingerprint(*existing(self.path, "pt"), self.value_range)

    def _content(self) -> _Content:
        return _read(*existing(self.path, "pt"), self.value_range)


@cached
def _read(path: Path, stamp: Stamp, value_range: ValueRange) -> _Content:
    """Images and labels.

    Raises:
        DataError: the file is damaged, pickled, or holds no images.
    """
    found = _loaded(path)
    images = _images(found, path)
    stored = StoredImages(_array(images, path), str(path), value_range)
    given = [found[name] for name in LABELS if name in found] if isinstance(found, Mapping) else []
    return _Content(stored, _labels(given[0], len(stored), path) if given else None)


def _loaded(path: Path) -> object:
    try:
        mapped = zipfile.is_zipfile(path)  # files of before torch 1.6 are no zip files and cannot be mapped
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)  # they are refused below
            return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except (*DAMAGE, TypeError, AttributeError, AssertionError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read: {reason}", hint=_HINT) from error


def _images(found: object, path: Path) -> Tensor:
    if isinstance(found, Tensor):
        return found
    if not isinstance(found, Mapping):
        raise DataError(
            f"{path}: holds a {type(found).__name__}, expected a tensor or a dictionary of them", hint=_HINT
        )
    named = [found[name] for name in NAMES if isinstance(found.get(name), Tensor)]
    tensors = [value for name, value in found.items() if isinstance(value, Tensor) and name not in LABELS]
    if named or len(tensors) == 1:
        return (named or tensors)[0]
    names = ", ".join(f"`{name}`" for name in list(found)[:5]) or "nothing"
    raise DataError(f"{path}: holds {names}, expected images under `images`", hint=_HINT)


def _array(images: Tensor, path: Path) -> np.ndarray:
    if images.layout != torch.strided or images.is_quantized:
        raise DataError(f"{path}: a sparse or quantised tensor, expected a plain one", hint=_HINT)
    if images.ndim and not len(images):
        raise DataError(f"{path}: no images in shape {tuple(images.shape)}")
    plain = images.detach()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()  # NumPy knows no bfloat16


def _labels(labels: object, count: int, path: Path) -> np.ndarray:
    if not isinstance(labels, Tensor) or labels.shape != (count,) or labels.is_floating_point() or labels.is_complex():
        raise DataError(f"{path}: the labels must be {count} whole numbers")
    found = labels.detach().numpy().astype(np.int64)
    if found.min() < 0:
        raise DataError(f"{path}: the label {found.min()} is negative")
    return found


@cached
def _fingerprint(path: Path, stamp: Stamp, value_range: ValueRange) -> str:
    content = _read(path, stamp, value_range)
    labels = b"" if content.labels is None else content.labels.tobytes()
    return hashlib.sha256(b"pt " + content.images.digest() + labels).hexdigest()[:16]
