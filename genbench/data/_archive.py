"""What zip and tar files of images share: frames, decoding, labels, fingerprints, files left out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genbench.core.dataset import Batch, Dataset, DataSpec, Split
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._images import Frame, Member, read_images, shared_frame, why_unreadable

SPLITS: tuple[Split, ...] = ("train",)
MAX_BYTES = 1 << 28
"""Greatest size of one unpacked member: 256 MiB; larger ones are taken for decompression bombs."""


@dataclass(frozen=True)
class Listing:
    """The images of an archive, in order."""

    names: tuple[str, ...]
    labels: np.ndarray | None
    """(N,) int64."""
    skipped: tuple[str, ...]
    """Members left out, each with its reason."""
    frame: Frame


class ImageArchive(Dataset):
    """Images in an archive; (1 or 3, H, W), values 0 .. 255, all in the split `train`."""

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the archive, 256 levels."""
        listing = self.listing()
        frame, labels = listing.frame, listing.labels
        num_classes = 0 if labels is None else int(labels.max()) + 1
        return DataSpec(shape=(frame.channels, frame.height, frame.width), num_classes=num_classes)

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    @property
    @abstractmethod
    def side(self) -> int | None:
        """Side in pixels to cut and resize to."""

    @abstractmethod
    def listing(self) -> Listing:
        """What the archive holds."""

    @abstractmethod
    def read(self, names: Sequence[str]) -> Iterator[Member]:
        """Members by name, in order."""

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner="the archive")
        return len(self.listing().names)

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Decoded images, with labels where the archive has any."""
        rows = checked_indices(indices, size=self.size(split), owner="the archive")
        listing = self.listing()
        frame, names = listing.frame, [listing.names[row] for row in rows]
        if not names:
            images = np.zeros((0, frame.channels, frame.height, frame.width), dtype=np.uint8)
        else:
            images = read_images(self.read(names), frame.channels, self.side)
        labels = None if listing.labels is None else torch.from_numpy(listing.labels[rows])
        return Batch(x=torch.from_numpy(images), y=labels)

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Paths within the archive."""
        names = self.listing().names
        return [names[index] for index in indices]

    def skipped(self) -> tuple[str, ...]:
        """Members left out because they cannot be read."""
        return self.listing().skipped

    def fingerprint(self) -> str:
        """Digest of the resolution and of every member's name, label and bytes."""
        listing = self.listing()
        content = hashlib.sha256(str(self.side).encode())
        for member, name in zip(self.read(listing.names), listing.names, strict=True):
            content.update(f"{name} {hashlib.sha256(member.content).hexdigest()}\n".encode())
        if listing.labels is not None:
            content.update(listing.labels.tobytes())
        return content.hexdigest()[:16]


def readable(members: Iterator[tuple[str, Member]], *, skip_bad: bool) -> tuple[list[str], tuple[str, ...]]:
    """Names of the members to keep, and of those left out with their reasons; all are kept unless `skip_bad`."""
    if not skip_bad:
        return [name for name, _ in members], ()
    reasons = {name: why_unreadable(member) for name, member in members}
    kept = [name for name, reason in reasons.items() if reason is None]
    return kept, tuple(reason for reason in reasons.values() if reason is not None)


def frame_of_all(members: Iterator[Member], side: int | None, *, owner: str) -> Frame:
    """The frame that all members share.

    Raises:
        DataError: there are none, or they differ and no resolution is given.
    """
    try:
        return shared_frame(members, side, owner=owner)
    except (IndexError, ValueError) as error:
        raise DataError(f"{owner}: no images", hint="expected members named *.png, *.jpg, *.webp, *.bmp") from error
