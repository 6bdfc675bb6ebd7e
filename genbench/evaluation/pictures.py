"""Pictures on their way to an extractor: which rows of which splits, in chunks, with what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split
from genbench.core.errors import SampleError
from genbench.prob.pixels import to_rgb

CHUNK = 512
"""Pictures decoded at once."""
_SUBSET_SEED = 0


def shown(x: Tensor, spec: DataSpec) -> Tensor:
    """Examples (N, *shape) as extractors of their kind take them: RGB images with values 0 .. 255, or waveforms."""
    return x if spec.kind == "waveform" else to_rgb(x, spec.levels or 256)


@dataclass(frozen=True)
class Pictures:
    """Rows of a data set's splits, in order."""

    dataset: Dataset
    rows: tuple[tuple[Split, np.ndarray], ...]

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.rows)

    def parts(self) -> Iterator[tuple[Split, np.ndarray]]:
        """Split and indices of at most `CHUNK` examples at a time, in order."""
        for split, rows in self.rows:
            for start in range(0, len(rows), CHUNK):
                yield split, rows[start : start + CHUNK]

    def chunks(self) -> Iterator[Tensor]:
        """Pictures of each part: (n, 3, H, W) uint8 with values 0 .. 255; waveforms are (n, 1, T) codes."""
        for split, rows in self.parts():
            yield shown(self.dataset.load(split, rows).x, self.dataset.spec)

    def names(self) -> list[str]:
        """What each picture is called."""
        return [name for split, rows in self.rows for name in self.dataset.identify(split, rows)]

    def file_order(self) -> np.ndarray:
        """Place (N,) of each picture in its file or folder, which splits may have taken apart."""
        return np.argsort(np.argsort(self.names())) if len(self.rows) > 1 else np.arange(len(self))

    def images_in_file_order(self) -> Tensor:
        """All of them at once, as they stand in their file or folder: row i of one side belongs to row i of another."""
        return self.images()[torch.from_numpy(np.argsort(self.file_order()))]

    def take(self, positions: np.ndarray) -> Pictures:
        """The pictures at the given positions, split by split."""
        kept, before = [], 0
        for split, rows in self.rows:
            here = positions[(positions >= before) & (positions < before + len(rows))] - before
            if len(here):
                kept.append((split, rows[here]))
            before += len(rows)
        return Pictures(self.dataset, tuple(kept))

    def images(self) -> Tensor:
        """All of them at once: (N, 3, H, W) uint8; for subsets."""
        return torch.cat(list(self.chunks()))

    def at(self, positions: np.ndarray) -> Tensor:
        """Pictures at the given positions (n,), in any order and with repeats: (n, 3, H, W) uint8."""
        used, places = np.unique(positions, return_inverse=True)
        return self.take(used).images()[torch.from_numpy(places)]

    def labels(self) -> Tensor | None:
        """Class of each picture (N,), None where some have none; pictures are decoded only if the data set must."""
        found = []
        for split, rows in self.parts():
            labels = self.dataset.labels(split, rows)
            if labels is None:
                return None
            found.append(labels)
        return torch.cat(found) if found else None

    def captions(self) -> list[str] | None:
        """Caption of each picture, None where some have none; as `labels`."""
        found: list[str] = []
        for split, rows in self.parts():
            captions = self.dataset.captions(split, rows)
            if captions is None:
                return None
            found += captions
        return found

    def fingerprint(self) -> str:
        """Digest of the content and of which rows of it are meant; 16 hex digits."""
        content = hashlib.sha256(self.dataset.fingerprint().encode())
        for split, rows in self.rows:
            content.update(split.encode() + np.ascontiguousarray(rows, dtype=np.int64).tobytes())
        return content.hexdigest()[:16]


def every_picture(dataset: Dataset) -> Pictures:
    """All pictures of all splits.

    Raises:
        SampleError: there is no end to them.
    """
    rows = []
    for split in dataset.splits:
        size = dataset.size(split)
        if size is None:
            raise SampleError("samples must have an end; a generated dataset can only be a reference")
        if size:
            rows.append((split, np.arange(size)))
    return Pictures(dataset, tuple(rows))


def some_pictures(dataset: Dataset, splits: Sequence[Split], count: int, *, skip: int = 0) -> Pictures:
    """A fixed random choice of pictures of some splits, the same in every run; all of them when there are fewer.

    Args:
        dataset: the data.
        splits: which parts; an endless one gives its first examples.
        count: how many pictures, over all splits.
        skip: leave out this many first, so that two choices do not overlap.
    """
    sizes = [dataset.size(split) for split in splits]
    if any(size is None for size in sizes):
        return Pictures(dataset, ((splits[0], np.arange(skip, skip + count)),))
    total = sum(size or 0 for size in sizes)
    everything = Pictures(
        dataset, tuple((split, np.arange(size or 0)) for split, size in zip(splits, sizes, strict=True))
    )
    if skip == 0 and total <= count:
        return everything
    return everything.take(np.sort(np.random.default_rng(_SUBSET_SEED).permutation(total)[skip : skip + count]))


class HeldImages(Dataset):
    """Images that are already in memory: (N, 1 or 3, H, W) uint8, one split."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self._images, self._labels = images, labels

    @property
    def spec(self) -> DataSpec:
        """Shape as given, 256 levels."""
        return DataSpec(shape=tuple(self._images.shape[1:]))

    @property
    def splits(self) -> tuple[Split, ...]:
        """All of them are called `train`."""
        return ("train",)

    def size(self, split: Split) -> int:
        """How many there are."""
        return len(self._images)

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at the given indices."""
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return Batch(x=self._images[rows], y=None if self._labels is None else self._labels[rows])

    def captions(self, split: Split, indices: Sequence[int] | np.ndarray) -> None:
        """None: there are none."""

    def fingerprint(self) -> str:
        """Digest of the bytes."""
        content = hashlib.sha256(str(tuple(self._images.shape)).encode())
        content.update(self._images.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]
