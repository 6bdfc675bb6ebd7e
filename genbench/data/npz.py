"""An `.npz` file of images: `npz:PATH`.

Arrays hold whole numbers 0 .. levels-1 of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels.
Their names are `train` and `test` (or `x_train` and `x_test`), or a single `images`, `x` or `arr_0`, of which a tenth,
chosen by a hash of the index, becomes `test`. Labels are optional: `train_labels` and `test_labels` (or `y_train` and
`y_test`), or a single `labels`, `y` or `arr_1`. Pickled objects are never opened.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._arrays import as_images
from genbench.data._counter import key_of, uniforms

TEST_SHARE = 0.1
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train", "x_train"), "test": ("test", "x_test")}
SPLIT_LABELS: dict[Split, tuple[str, ...]] = {"train": ("train_labels", "y_train"), "test": ("test_labels", "y_test")}
SINGLE_NAMES = ("images", "x", "arr_0")
SINGLE_LABELS = ("labels", "y", "arr_1")


@dataclass(frozen=True)
class _Content:
    images: dict[Split, np.ndarray]
    """(N, C, H, W) uint8 per split."""
    labels: dict[Split, np.ndarray] | None
    """(N,) int64 per split."""
    places: dict[Split, np.ndarray] | None = None
    """(N,) place of each image in a single array that was divided, None where the file has both splits."""


@register_dataset("npz")
@dataclass(frozen=True)
class Npz(Dataset):
    """The user's images; (1 or 3, H, W), values 0 .. levels-1."""

    takes_argument = True
    source = "the user's"

    path: str
    """The file; `~` is the home folder."""
    levels: int = 256
    """Values run over 0 .. levels-1; a larger value in the file is an error."""

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels is {self.levels}, expected 2 .. 256")

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the file."""
        content = self._content()
        num_classes = 0 if content.labels is None else 1 + max(_greatest(v) for v in content.labels.values())
        return DataSpec(shape=content.images["train"].shape[1:], levels=self.levels, num_classes=num_classes)

    def size(self, split: Split) -> int:
        """Number of images of a split."""
        return len(self._content().images[checked_split(split, self.splits, owner=f"npz:{self.path}")])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images in the file's order, with labels where there are any."""
        rows = checked_indices(indices, size=self.size(split), owner=f"npz:{self.path}, {split}")
        content = self._content()
        labels = None if content.labels is None else torch.from_numpy(content.labels[split][rows])
        return Batch(x=torch.from_numpy(content.images[split][rows]), y=labels)

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Places in the file, padded so that their order as text is the file's."""
        places = self._content().places
        return [f"{index if places is None else places[split][index]:08d}" for index in indices]

    def fingerprint(self) -> str:
        """Digest of the levels and of every image and label."""
        content = self._content()
        digest = hashlib.sha256(f"npz {self.levels}".encode())
        for split in self.splits:
            arrays = [content.images[split]] + ([] if content.labels is None else [content.labels[split]])
            for array in arrays:
                digest.update(f"{split} {array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def _content(self) -> _Content:
        path = Path(self.path).expanduser().absolute()
        if not path.is_file():
            raise DataError(f"npz:{self.path}: there is no file {path}", hint="check the path")
        return _read(path, self.levels, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, levels: int, modified: int) -> _Content:
    """Read the file; `modified` (its time stamp) makes a file that was written again a new entry of the cache."""
    try:
        with path.open("rb") as file:  # opened here, because `np.load` leaves a damaged file open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: a single array, expected an archive (.npz)", hint="write it with `np.savez`")
            return _content_of(archive, path, levels)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        hint = "write plain arrays with `np.savez`; pickled objects can run code and are not opened"
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from error


def _content_of(archive: Mapping[str, np.ndarray], path: Path, levels: int) -> _Content:
    named = {split: _first(archive, names) for split, names in SPLIT_NAMES.items()}
    single = _first(archive, SINGLE_NAMES)
    if named["train"] is not None and named["test"] is not None:
        images = {split: as_images(archive[str(name)], f"{path}: `{name}`", levels) for split, name in named.items()}
        return _Content(images, _matched(images, {s: _labels(archive, path, n) for s, n in SPLIT_LABELS.items()}, path))
    if single is not None:
        return _divided(
            as_images(archive[single], f"{path}: `{single}`", levels), _labels(archive, path, SINGLE_LABELS), path
        )
    if {"mu", "sigma"} <= set(archive):
        raise DataError(
            f"{path}: holds moments of features and no images",
            hint="it is a statistics file, which can stand on either side of `genbench evaluate`",
        )
    raise DataError(
        f"{path}: holds {', '.join(sorted(archive)) or 'nothing'}, expected `train` and `test`, or `images`",
        hint="write it with `np.savez(path, images=...)`",
    )


def _divided(images: np.ndarray, labels: np.ndarray | None, path: Path) -> _Content:
    """A single array in two splits: which image is in which depends on its index alone."""
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{path}: {len(labels)} labels for {len(images)} images")
    held_out = uniforms(key_of("npz", "split"), np.arange(len(images)), 1)[:, 0] < TEST_SHARE
    masks: dict[Split, np.ndarray] = {"train": ~held_out, "test": held_out}
    divided = None if labels is None else {split: labels[mask] for split, mask in masks.items()}
    places = {split: np.flatnonzero(mask) for split, mask in masks.items()}
    return _Content({split: images[mask] for split, mask in masks.items()}, divided, places)


def _first(archive: Mapping[str, np.ndarray], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in archive), None)


def _matched(
    images: dict[Split, np.ndarray], labels: Mapping[Split, np.ndarray | None], path: Path
) -> dict[Split, np.ndarray] | None:
    """The labels, checked against the images; None when no split has any."""
    if images["train"].shape[1:] != images["test"].shape[1:]:
        shapes = " and ".join(str(array.shape[1:]) for array in images.values())
        raise DataError(f"{path}: images of train and test differ in shape: {shapes}")
    given = {split: array for split, array in labels.items() if array is not None}
    if not given:
        return None
    for split in images:
        count = len(given[split]) if split in given else 0
        if count != len(images[split]):
            raise DataError(f"{path}: {count} labels for {len(images[split])} images of {split}")
    return given


def _labels(archive: Mapping[str, np.ndarray], path: Path, names: tuple[str, ...]) -> np.ndarray | None:
    name = _first(archive, names)
    if name is None:
        return None
    labels = archive[name]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise DataError(
            f"{path}: `{name}` is {labels.dtype} of shape {labels.shape}, expected whole numbers >= 0 of shape (N,)"
        )
    return labels.astype(np.int64)


def _greatest(labels: np.ndarray) -> int:
    return int(labels.max()) if labels.size else -1
