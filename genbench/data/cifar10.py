"""CIFAR-10: 60,000 natural images of ten classes, RGB, 32x32.

Two layouts under `GENBENCH_DATA/cifar10` are read, in this order:

1. `cifar-10-batches-bin/`: the authors' binary version, six files of 10,000 records of 3,073 bytes (a label, then the
   red, green and blue planes).
2. `train/<class>/*` and `test/<class>/*`: image files in folders named for the ten classes. They may have been
   compressed again, and then are other data than CIFAR-10: the fingerprint differs, and bits per dimension must not be
   compared with published figures.

The Python version (`cifar-10-batches-py`, which torchvision unpacks) is a set of pickles, which can run any code when
they are opened; it is not read. Nothing is downloaded silently. Krizhevsky, "Learning multiple layers of features from
tiny images", 2009.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from genbench.core.data_root import data_root, missing
from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._images import Frame, image_files, read_images, shared_frame
from genbench.data._pooling import average_pooled

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Resolution = Literal[8, 16, 32]
RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)
NATIVE = 32
RECORDS = 10_000
"""Records of a binary file."""
BINARY: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}


@register_dataset("cifar10")
@dataclass(frozen=True)
class CIFAR10(Dataset):
    """Natural images; (3, resolution, resolution), values 0 .. 255, ten classes."""

    source = "https://www.cs.toronto.edu/~kriz/cifar.html, for research"
    folders = ("cifar10/cifar-10-batches-bin", "cifar10/train")
    how = "unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

    resolution: Resolution = 32
    """Side in pixels: 32 as stored; 16 and 8 averaged over equal blocks and rounded."""

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution is {self.resolution}, expected one of {', '.join(map(str, RESOLUTIONS))}")

    @property
    def spec(self) -> DataSpec:
        """RGB images with 256 levels and ten classes."""
        return DataSpec(shape=(3, self.resolution, self.resolution), num_classes=len(CLASSES))

    def size(self, split: Split) -> int:
        """50,000 for train and 10,000 for test in the binary layout, else the number of files."""
        return len(_arrays(checked_split(split, self.splits, owner="cifar10"))[1])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images and labels in the files' own order."""
        rows = checked_indices(indices, size=self.size(split), owner=f"cifar10, {split}")
        images, labels = _arrays(split)
        return Batch(
            x=torch.from_numpy(average_pooled(images[rows], self.resolution)), y=torch.from_numpy(labels[rows])
        )

    def fingerprint(self) -> str:
        """Digest of the resolution and of every stored image and label."""
        digest = hashlib.sha256(f"cifar10 {self.resolution}".encode())
        for split in self.splits:
            for array in _arrays(split):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]


def read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (10000, 3, 32, 32) uint8 and labels (10000,) int64 of a file of the binary version.

    Raises:
        DataError: the file is not as long as 10,000 records, or holds a label above 9.
    """
    expected = RECORDS * (1 + 3 * NATIVE**2)
    found = path.stat().st_size
    if found != expected:
        raise DataError(f"{path}: found {found} bytes, expected {expected}", hint=f"{CIFAR10.how} again")
    records = np.fromfile(path, dtype=np.uint8).reshape(RECORDS, -1)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise DataError(f"{path}: found label {labels.max()}, expected 0 .. 9", hint=f"{CIFAR10.how} again")
    return records[:, 1:].reshape(-1, 3, NATIVE, NATIVE), labels


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """All images (N, 3, 32, 32) uint8 and labels (N,) int64 of a split, from whichever layout is there."""
    root = data_root() / "cifar10"
    binary = root / "cifar-10-batches-bin"
    if binary.is_dir():
        return _read_binary(binary, split)
    if all((root / name).is_dir() for name in ("train", "test")):
        return _read_folder(root / split)
    pickled = root / "cifar-10-batches-py"
    found = " (the pickles in `cifar-10-batches-py` are not read: they can run code)" if pickled.is_dir() else ""
    raise missing("cifar10", looked=binary, how=f"{CIFAR10.how} in {root}{found}")


@functools.lru_cache(maxsize=2)
def _read_binary(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    paths = [folder / name for name in BINARY[split]]
    for path in paths:
        if not path.is_file():
            raise missing("cifar10", looked=path, how=f"{CIFAR10.how} again")
    images, labels = zip(*(read_records(path) for path in paths), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@functools.lru_cache(maxsize=2)
def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for label, name in enumerate(CLASSES):
        paths = image_files(folder / name)
        if not paths:
            raise DataError(f"{folder / name}: no images, expected those of class `{name}`")
        frame = shared_frame(paths, None, owner="cifar10")
        if frame != Frame(3, NATIVE, NATIVE):
            raise DataError(f"{paths[0]}: {frame}, expected RGB of {NATIVE} x {NATIVE} pixels")
        images.append(read_images(paths, 3, None))
        labels.append(np.full(len(paths), label, dtype=np.int64))
    return np.concatenate(images), np.concatenate(labels)
