"""The idx files of MNIST and its kin, plain or gzipped, in the folders that torchvision lays out.

An idx file is two zero bytes, a byte for the type (8: unsigned byte), a byte for the number of dimensions, the
dimensions as big-endian 32-bit integers, and the values in C order.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast, get_args

import numpy as np
import torch

from genbench.core.data_root import data_root, missing
from genbench.core.dataset import Batch, Dataset, DataSpec, Split
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, uniforms
from genbench.data._pooling import average_pooled

UNSIGNED_BYTE = 8
NATIVE = 28
Resolution = Literal[8, 16, 28, 32]
RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)
BINARISED = ("no", "static", "dynamic")
SIZES: dict[Split, int] = {"train": 60_000, "test": 10_000}
PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxImages(Dataset, ABC):
    """70,000 grey images of ten classes; (1, resolution, resolution), values 0 .. 255."""

    resolution: Resolution = 28
    """Side in pixels: 28 as stored; 32 with a frame of zeros; 16 and 8 averaged from 32 and rounded."""
    binarised: Literal["no", "static", "dynamic"] = "no"
    """Ink with the probability that a pixel's grey names (Salakhutdinov and Murray 2008): drawn once for each image, or
    anew in every epoch of a training set that then has no end. Test images are drawn once."""

    def __post_init__(self) -> None:
        if self.binarised not in BINARISED:
            raise ValueError(f"binarised is `{self.binarised}`, expected one of {', '.join(BINARISED)}")
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution is {self.resolution}, expected one of {', '.join(map(str, RESOLUTIONS))}")

    @property
    @abstractmethod
    def name(self) -> str:
        """The registered name, which is also the folder's; `folders` has the path of the idx files below it."""

    @property
    def spec(self) -> DataSpec:
        """Grey images with 256 levels, or 2 where they are binarised, and ten classes."""
        levels = 256 if self.binarised == "no" else 2
        return DataSpec(shape=(1, self.resolution, self.resolution), levels=levels, num_classes=10)

    def size(self, split: Split) -> int | None:
        """60,000 for train, 10,000 for test; None for a training set that is binarised anew in every epoch."""
        stored = SIZES[checked_split(split, self.splits, owner=self.name)]
        return None if self._endless(split) else stored

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images and labels in the files' own order; without end, image i is the stored image i mod 60,000."""
        rows = checked_indices(indices, size=self.size(split), owner=f"{self.name}, {split}")
        images, labels = self._arrays(split)
        stored = rows % len(labels)
        x = resized(images[stored][:, None], self.resolution)
        if self.binarised != "no":
            x = self._drawn(x, split, rows)
        return Batch(x=torch.from_numpy(x), y=torch.from_numpy(labels[stored].astype(np.int64)))

    def _endless(self, split: Split) -> bool:
        return self.binarised == "dynamic" and split == "train"

    def _drawn(self, grey: np.ndarray, split: Split, rows: np.ndarray) -> np.ndarray:
        """Levels 0 and 1; what an image gets depends on its index alone."""
        key = key_of(self.name, "binarised", split, str(self.resolution))
        u = uniforms(key, rows, grey[0].size).reshape(grey.shape)
        return (u * 255.0 < grey).astype(np.uint8)

    def fingerprint(self) -> str:
        """Digest of the settings and of every stored image and label."""
        drawn = "" if self.binarised == "no" else f" {self.binarised}"
        digest = hashlib.sha256(f"{self.name} {self.resolution}{drawn}".encode())
        for split in self.splits:
            for array in self._arrays(split):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def _arrays(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        (path,) = self.folders
        folder = data_root() / path
        stems = (f"{PREFIXES[split]}-images-idx3-ubyte", f"{PREFIXES[split]}-labels-idx1-ubyte")
        paths = []
        for stem in stems:
            found = [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
            if not found:
                raise missing(self.name, looked=folder / f"{stem}[.gz]", how=self.how)
            paths.append(found[0])
        return _read_pair(paths[0], paths[1], SIZES[split])


def resized(images: np.ndarray, resolution: int) -> np.ndarray:
    """Images (N, 1, 28, 28) at one of `RESOLUTIONS`: zeros around to 32, then averages of equal blocks."""
    if resolution == NATIVE:
        return images
    return average_pooled(np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))), resolution)


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Values of an idx file of bytes: an array of the given shape, uint8.

    Raises:
        DataError: the file is no idx file of bytes, has another shape, or is shorter or longer than its header says.
    """
    try:
        with _opened(path) as file:
            _check_header(path, file.read(4 + 4 * len(shape)), shape)
            num_values = int(np.prod(shape))
            values = file.read(num_values + 1)  # one more than expected, so that no gzip file can fill the memory
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="delete the file and get it again") from error
    if len(values) != num_values:
        found = f"found {len(values)} bytes" if len(values) < num_values else "found more bytes"
        raise DataError(
            f"{path}: {found} after the header, expected {num_values}", hint="delete the file and get it again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _check_header(path: Path, header: bytes, shape: tuple[int, ...]) -> None:
    expected = bytes([0, 0, UNSIGNED_BYTE, len(shape)])
    if header[:4] != expected:
        raise DataError(
            f"{path}: starts with {header[:4].hex(' ') or 'nothing'}, expected {expected.hex(' ')} "
            f"(idx, unsigned bytes, {len(shape)} dimensions)",
            hint="delete the file and get it again",
        )
    if len(header) < 4 + 4 * len(shape):
        raise DataError(
            f"{path}: found {len(header)} bytes, expected a header of {4 + 4 * len(shape)}",
            hint="delete the file and get it again",
        )
    found = tuple(np.frombuffer(header[4:], dtype=">u4").tolist())
    if found != shape:
        raise DataError(f"{path}: holds an array of shape {found}, expected {shape}")


@functools.lru_cache(maxsize=4)
def _read_pair(image_path: Path, label_path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(image_path, (size, NATIVE, NATIVE))
    labels = read_idx(label_path, (size,))
    if labels.max() > 9:
        raise DataError(f"{label_path}: found label {labels.max()}, expected 0 .. 9")
    return images, labels
