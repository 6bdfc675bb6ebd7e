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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import register_dataset
from genbench.core.errors import DataError
from genbench.data._arrays import DAMAGE, ArrayContent, ImageArray, StoredImages, ValueRange
from genbench.data._files import Stamp, cached, existing

NAMES = ("images", "samples", "x")
LABELS = ("labels", "y")
_HINT = "write a tensor with `torch.save(images, path)`; pickled objects can run code and are not opened"


@register_dataset("pt")
@dataclass(frozen=True)
class Pt(ImageArray):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    kind: ClassVar[str] = "pt"

    def content(self) -> ArrayContent:
        """Images, read row by row where the file permits, and labels."""
        return _read(*existing(self.path, "pt"), self.value_range)

    def fingerprint(self) -> str:
        """Digest of every image as it is read, rounding included, and of every label."""
        return _fingerprint(*existing(self.path, "pt"), self.value_range)


@cached
def _read(path: Path, stamp: Stamp, value_range: ValueRange) -> ArrayContent:
    """Images and labels.

    Raises:
        DataError: the file is damaged, pickled, or holds no images.
    """
    found = _loaded(path)
    images = _images(found, path)
    stored = StoredImages(_array(images, path), str(path), value_range)
    given = [found[name] for name in LABELS if name in found] if isinstance(found, Mapping) else []
    return ArrayContent(stored, _labels(given[0], len(stored), path) if given else None)


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
