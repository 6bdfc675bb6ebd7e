"""1,797 real handwritten digits, grey, 8x8, with 17 levels; they ship inside scikit-learn.

A pixel counts the inked points of a 4x4 block, hence 0 .. 16 (Alpaydin and Kaynak, "Optical Recognition of Handwritten
Digits", UCI, 1998). A fifth of every class, chosen by a hash of the position in the file, is `test`. The file does not
say who wrote what, so that the hand of one writer may be found in both splits.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, words

TEST_SHARE = 0.2
LEVELS = 17


@register_dataset("digits")
@dataclass(frozen=True)
class Digits(Dataset):
    """Handwritten digits; (1, 8, 8), values 0 .. 16, ten classes."""

    source = "scikit-learn, from https://archive.ics.uci.edu/dataset/80, CC BY 4.0"

    @property
    def spec(self) -> DataSpec:
        """Grey images with 17 levels and ten classes."""
        return DataSpec(shape=(1, 8, 8), levels=LEVELS, num_classes=10)

    def size(self, split: Split) -> int:
        """Number of images of a split; both together are 1,797."""
        return len(_split_arrays(checked_split(split, self.splits, owner="digits"))[1])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images and labels in the order of scikit-learn's file."""
        rows = checked_indices(indices, size=self.size(split), owner=f"digits, {split}")
        images, labels = _split_arrays(split)
        return Batch(x=torch.from_numpy(images[rows]), y=torch.from_numpy(labels[rows]))

    def fingerprint(self) -> str:
        """Digest of every image and label of both splits."""
        digest = hashlib.sha256(b"digits")
        for split in self.splits:
            for array in _split_arrays(split):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]


@functools.cache
def _split_arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    values, targets = load_digits(return_X_y=True)
    images = values.astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = targets.astype(np.int64)
    ranks = words(key_of("digits", "split"), np.arange(len(labels)), 1)[:, 0]
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(ranks[members])]
        held_out[order[: round(TEST_SHARE * len(members))]] = True
    chosen = held_out if split == "test" else ~held_out
    return images[chosen], labels[chosen]
