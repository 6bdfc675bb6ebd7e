"""Natural-image patches, RGB, cut from the two photographs inside scikit-learn.

Each photograph (427 x 640) is divided into 8 upright strips; the third and the seventh belong to `test` and the others
to `train`, so that both splits see sky, roof and ground. A patch lies within one strip, so that no pixel occurs in both
splits; strips end at multiples of 16, so that no JPEG block is shared either.

The examples of a split are all its patches, each once: the number is finite (about 320,000 for `train` at 16 pixels),
and their order is shuffled once and for all by a hash of the position, so that the first n are a random draw without
repeats. Neighbouring positions overlap; the number of independent patches is smaller by about the area of a patch.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from sklearn.datasets import load_sample_images

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.ranges import Range
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, words

NUM_PHOTOGRAPHS = 2
STRIP = 80
"""Width of a strip in pixels: five JPEG blocks with halved colours."""
LARGEST = 64
"""Greatest side of a patch, below the width of a strip."""


@register_dataset("patches")
@dataclass(frozen=True)
class Patches(Dataset):
    """Patches of two photographs, a temple and a flower; (3, resolution, resolution), values 0 .. 255."""

    source = "scikit-learn: china.jpg (Chris McCoy) and flower.jpg (Oliver Hallmann), CC BY 2.0"

    resolution: Annotated[int, Range(4, 64)] = 16
    """Side of a patch in pixels; a larger patch shows more of the photograph, it is no enlargement."""

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= LARGEST:
            raise ValueError(f"resolution is {self.resolution}, expected 4 .. {LARGEST}")

    @property
    def spec(self) -> DataSpec:
        """RGB images with 256 levels, without labels."""
        return DataSpec(shape=(3, self.resolution, self.resolution))

    def size(self, split: Split) -> int:
        """Number of different patches of a split."""
        return len(_corners(checked_split(split, self.splits, owner="patches"), self.resolution))

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Patches in their shuffled order."""
        rows = checked_indices(indices, size=self.size(split), owner=f"patches, {split}")
        photograph, top, left = _corners(split, self.resolution)[rows].T
        sides = (self.resolution, self.resolution)
        windows = np.lib.stride_tricks.sliding_window_view(_photographs(), sides, axis=(1, 2))
        return Batch(x=torch.from_numpy(windows[photograph, top, left]))  # (B, 3, R, R)

    def fingerprint(self) -> str:
        """Digest of the photographs, which depend on the JPEG decoder, and of the order of the patches."""
        digest = hashlib.sha256(_photographs().tobytes())
        for split in self.splits:
            digest.update(_corners(split, self.resolution).tobytes())
        return digest.hexdigest()[:16]


@functools.cache
def _photographs() -> np.ndarray:
    """Both photographs: (2, 427, 640, 3) uint8."""
    return np.stack(load_sample_images().images)


@functools.lru_cache(maxsize=8)
def _corners(split: Split, resolution: int) -> np.ndarray:
    """Photograph, top and left of every patch of a split, shuffled: (M, 3) int64."""
    _, height, width, _ = _photographs().shape
    starts = [left for left in range(0, width, STRIP) if (left // STRIP % 4 == 2) == (split == "test")]
    lefts = np.concatenate([np.arange(left, left + STRIP - resolution + 1) for left in starts])
    tops = np.arange(height - resolution + 1)
    grid = np.meshgrid(np.arange(NUM_PHOTOGRAPHS), tops, lefts, indexing="ij")
    corners = np.stack(grid, axis=-1).reshape(-1, 3).astype(np.int64)
    ranks = words(key_of("patches", split, str(resolution)), np.arange(len(corners)), 1)[:, 0]
    return corners[np.argsort(ranks)]
