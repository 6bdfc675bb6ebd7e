"""What zip and tar files of images share: settings, decoding, labels, captions, fingerprints, members left out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import PAD, Batch, Dataset, DataSpec, Split
from genbench.core.errors import DataError
from genbench.core.ranges import Count
from genbench.data._access import checked_indices, checked_split
from genbench.data._files import SPLITS
from genbench.data._images import FORMATS, Frame, Member, Seen, frame_of_all, is_hidden, read_images, survey

MAX_BYTES = 1 << 28
"""Greatest size of one unpacked member: 256 MiB; larger ones are taken for decompression bombs."""


@dataclass(frozen=True)
class Words:
    """Captions as tokens."""

    vocabulary: tuple[str, ...]
    tokens: np.ndarray
    """(N, T) int64, padded with `PAD`."""

    def spelt(self, row: int) -> str:
        """One caption, as `DataSpec.caption` spells it."""
        return " ".join(self.vocabulary[token] for token in self.tokens[row] if token != PAD)


@dataclass(frozen=True)
class Listing:
    """The images of an archive, in order."""

    names: tuple[str, ...]
    labels: np.ndarray | None
    """(N,) int64."""
    captions: Words | None
    skipped: tuple[str, ...]
    """Members left out, each with its reason."""
    frame: Frame
    digests: tuple[str, ...]
    """SHA-256 of each image's bytes."""


@dataclass(frozen=True)
class ImageArchive(Dataset):
    """Images in an archive; (1 or 3, H, W), values 0 .. 255, all in the split `train`."""

    takes_argument = True
    source = "the user's"
    kind: ClassVar[str]
    """Registered name, for messages."""

    path: str
    """The file; `~` is the home folder."""
    resolution: Count | None = None
    """Side in pixels to cut and resize to; None keeps the images as they are."""
    skip_bad: bool = False
    """Leave out members that cannot be read, instead of refusing the file."""

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}, expected at least 1")

    @property
    def spec(self) -> DataSpec:
        """Shape, classes and words as found in the archive, 256 levels."""
        listing = self.listing()
        frame, labels, captions = listing.frame, listing.labels, listing.captions
        return DataSpec(
            shape=(frame.channels, frame.height, frame.width),
            num_classes=0 if labels is None else int(labels.max()) + 1,
            vocabulary=() if captions is None else captions.vocabulary,
        )

    @property
    def splits(self) -> tuple[Split, ...]:
        """`train` holds everything."""
        return SPLITS

    @abstractmethod
    def listing(self) -> Listing:
        """What the archive holds."""

    @abstractmethod
    def read(self, names: Sequence[str]) -> Iterator[Member]:
        """Members by name, in order; one that cannot be read says why in its place."""

    def size(self, split: Split) -> int:
        """Number of images."""
        checked_split(split, SPLITS, owner=self._owner)
        return len(self.listing().names)

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Decoded images, with labels and captions where the archive has them."""
        rows, listing = self._rows(split, indices), self.listing()
        frame, labels, captions = listing.frame, listing.labels, listing.captions
        if rows.size:
            images = read_images(self.read([listing.names[row] for row in rows]), frame.channels, self.resolution)
        else:
            images = np.zeros((0, frame.channels, frame.height, frame.width), dtype=np.uint8)
        return Batch(
            x=torch.from_numpy(images),
            y=None if labels is None else torch.from_numpy(labels[rows]),
            text=None if captions is None else torch.from_numpy(captions.tokens[rows]),
        )

    def labels(self, split: Split, indices: Sequence[int] | np.ndarray) -> Tensor | None:
        """Classes, without decoding a picture."""
        rows, labels = self._rows(split, indices), self.listing().labels
        return None if labels is None else torch.from_numpy(labels[rows])

    def captions(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str] | None:
        """Captions, without decoding a picture."""
        rows, captions = self._rows(split, indices), self.listing().captions
        return None if captions is None else [captions.spelt(row) for row in rows]

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Paths within the archive."""
        names = self.listing().names
        return [names[row] for row in self._rows(split, indices)]

    def skipped(self) -> tuple[str, ...]:
        """Members left out because they cannot be read."""
        return self.listing().skipped

    def fingerprint(self) -> str:
        """Digest of the resolution and of every image's name, label, caption and bytes."""
        listing = self.listing()
        content = hashlib.sha256(str(self.resolution).encode())
        for name, digest in zip(listing.names, listing.digests, strict=True):
            content.update(f"{name} {digest}\n".encode())
        if listing.labels is not None:
            content.update(listing.labels.tobytes())
        if listing.captions is not None:
            content.update(" ".join(listing.captions.vocabulary).encode() + listing.captions.tokens.tobytes())
        return content.hexdigest()[:16]

    @property
    def _owner(self) -> str:
        return f"{self.kind}:{self.path}"

    def _rows(self, split: Split, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return checked_indices(indices, size=self.size(split), owner=self._owner)


def pictures_among(names: Sequence[str]) -> list[str]:
    """Names of image files in the order of their text; hidden ones left out."""
    paths = ((name, PurePosixPath(name)) for name in names)
    return sorted(name for name, path in paths if path.suffix.lower() in FORMATS and not is_hidden(path.parts))


def chosen(names: Sequence[str], seen: Sequence[Seen], *, skip_bad: bool) -> tuple[list[tuple[str, Seen]], list[str]]:
    """The members to keep, all of them unless `skip_bad`, and why the others are left out.

    Raises:
        DataError: none of them can be read.
    """
    both = list(zip(names, seen, strict=True))
    if not skip_bad:
        return both, []
    reasons = [one.problem.message for one in seen if one.problem is not None]
    if reasons and len(reasons) == len(seen):
        raise DataError(f"{reasons[0]}; all {len(reasons)} images are bad", hint="nothing is left to read")
    return [(name, one) for name, one in both if one.problem is None], reasons


def listing_of(
    members: Iterator[Member], names: Sequence[str], *, resolution: int | None, skip_bad: bool, owner: str
) -> Listing:
    """What one pass over the images finds; labels and captions are still to be told.

    Raises:
        DataError: there are none, some are bad, or they differ and no resolution is given.
    """
    kept, skipped = chosen(names, survey(members, whole=skip_bad), skip_bad=skip_bad)
    frame = frame_of_all([one for _, one in kept], resolution, owner=owner)
    return Listing(
        names=tuple(name for name, _ in kept),
        labels=None,
        captions=None,
        skipped=tuple(skipped),
        frame=frame,
        digests=tuple(one.digest for _, one in kept),
    )


def words_of(captions: Sequence[str]) -> Words:
    """Captions cut at white space, which `DataSpec.caption` puts together again with single spaces."""
    cut = [caption.split() for caption in captions]
    vocabulary = ("", *sorted({word for words in cut for word in words}))
    number = {word: token for token, word in enumerate(vocabulary)}
    tokens = np.full((len(cut), max(map(len, cut), default=0)), PAD, dtype=np.int64)
    for row, words in enumerate(cut):
        tokens[row, : len(words)] = [number[word] for word in words]
    return Words(vocabulary, tokens)


def whole_number(value: object) -> int:
    """A class: a whole number >= 0, also spelt as text or as `3.0`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"`{value}` is no class, expected a whole number >= 0")
    number = float(value)
    if not number.is_integer() or number < 0:
        raise ValueError(f"`{value}` is no class, expected a whole number >= 0")
    return int(number)


def all_or_none(found: Mapping[str, str], names: Sequence[str], what: str, where: str) -> list[str] | None:
    """What stands beside each image, None where nothing stands beside any.

    Raises:
        DataError: it stands beside some only.
    """
    given = [found[name] for name in names if name in found]
    if not given:
        return None
    if len(given) < len(names):
        missing = next(name for name in names if name not in found)
        raise DataError(
            f"{where}: {len(given)} of {len(names)} images have a {what}, `{missing}` has none",
            hint=f"give every image a {what}, or none",
        )
    return given
