"""A `.pt` file of images: `pt:PATH`, a tensor or a dictionary with the tensors `images` and `labels`.

The tensor is (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels: whole numbers 0 .. 255, or floats with
the setting `value_range`, rounded to the nearest level. All images belong to one split, `train`: the file is for
samples and for references. Only tensors are read (`weights_only=True`), no pickled objects.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._arrays import ValueRange, as_images, refuse_unsigned, whole_numbers

SPLITS: tuple[Split, ...] = ("train",)


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
        images, labels = self._content()
        num_classes = 0 if labels is None or not len(labels) else int(labels.max()) + 1
        return DataSpec(shape=tuple(images.shape[1:]), num_classes=num_classes)

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner=f"pt:{self.path}")
        return len(self._content()[0])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at the given rows of the tensor, with labels where there are any."""
        rows = torch.from_numpy(checked_indices(indices, size=self.size(split), owner=f"pt:{self.path}"))
        images, labels = self._content()
        return Batch(x=images[rows], y=None if labels is None else labels[rows])

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Rows of the tensor."""
        return [f"{index:08d}" for index in indices]

    def fingerprint(self) -> str:
        """Digest of every image and label."""
        images, labels = self._content()
        content = hashlib.sha256(f"pt {tuple(images.shape)}".encode() + images.numpy().tobytes())
        if labels is not None:
            content.update(labels.numpy().tobytes())
        return content.hexdigest()[:16]

    def _content(self) -> tuple[Tensor, Tensor | None]:
        path = Path(self.path).expanduser().absolute()
        if not path.is_file():
            raise DataError(f"pt:{self.path}: there is no file {path}", hint="check the path")
        return _read(path, self.value_range, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read(path: Path, value_range: ValueRange, modified: int) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, H, W) uint8 and labels; `modified` makes a file that was written again a new entry of the cache."""
    hint = "write a tensor with `torch.save(images, path)`; pickled objects can run code and are not opened"
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read: {reason}", hint=hint) from error
    images, labels = (found.get("images"), found.get("labels")) if isinstance(found, dict) else (found, None)
    if not isinstance(images, Tensor) or images.ndim not in (3, 4) or len(images) == 0:
        raise DataError(
            f"{path}: holds no images: expected a tensor, or a dictionary with a tensor `images`", hint=hint
        )
    array = images.float().numpy() if images.is_floating_point() else images.numpy()
    refuse_unsigned(float(array.min()), value_range, str(path))
    whole = torch.from_numpy(as_images(whole_numbers(array, value_range, str(path)), str(path)))
    if labels is None:
        return whole, None
    if not isinstance(labels, Tensor) or labels.shape != (len(whole),) or labels.is_floating_point():
        raise DataError(f"{path}: `labels` must be {len(whole)} whole numbers")
    return whole, labels.long()
