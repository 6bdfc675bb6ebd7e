"""A folder of PNG, JPEG or WebP images: `folder:PATH`.

All image files at any depth are read, in the order of their relative paths. If there are sub-folders `train` and
`test`, they are the splits and nothing beside them is read; otherwise a tenth of the files, chosen by a hash of the
relative path, is `test`, so that files that come or go later move no other. If every image of a split lies in a
sub-folder and there are at least two of these, their sorted names are the classes.

All images must share one size and be all grey or all RGB, unless a resolution is given: then the largest square in the
middle is cut out and resized (box filter to shrink, bicubic to enlarge, both with antialiasing), and grey images among
RGB ones become RGB. Files are decoded when they are asked for. What counts as an image is in the module `_images`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.data._images import FORMATS, Frame, image_files, read_images, shared_frame, why_unreadable

TEST_SHARE = 0.1


@dataclass(frozen=True)
class _Listing:
    """Files of both splits, each with its class (-1 without classes)."""

    files: dict[Split, tuple[Path, ...]]
    labels: dict[Split, np.ndarray]
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    """Files left out, each with its reason."""


@register_dataset("folder")
@dataclass(frozen=True)
class Folder(Dataset):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    takes_argument = True
    source = "the user's"

    path: str
    """The folder; `~` is the home folder."""
    resolution: int | None = None
    """Side in pixels to cut and resize to; None keeps the images as they are."""
    skip_bad: bool = False
    """Leave out files that cannot be read, instead of refusing the folder; each is then decoded once more."""

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}, expected at least 1")

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the folder, with 256 levels."""
        frame = _frame(self._root(), self.resolution, self.skip_bad)
        classes = _listing(self._root(), self.skip_bad).classes
        return DataSpec(shape=(frame.channels, frame.height, frame.width), num_classes=len(classes))

    def size(self, split: Split) -> int:
        """Number of files of a split."""
        return len(
            _listing(self._root(), self.skip_bad).files[checked_split(split, self.splits, owner=f"folder:{self.path}")]
        )

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Decoded images, with the sub-folder as label where sub-folders are classes."""
        rows = checked_indices(indices, size=self.size(split), owner=f"folder:{self.path}, {split}")
        frame, listing = _frame(self._root(), self.resolution, self.skip_bad), _listing(self._root(), self.skip_bad)
        if not rows.size:
            images = np.zeros((0, frame.channels, frame.height, frame.width), dtype=np.uint8)
        else:
            files = listing.files[split]
            images = read_images([files[row] for row in rows], frame.channels, self.resolution)
        labels = torch.from_numpy(listing.labels[split][rows]) if listing.classes else None
        return Batch(x=torch.from_numpy(images), y=labels)

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Relative paths of the files."""
        files = _listing(self._root(), self.skip_bad).files[split]
        return [files[index].relative_to(self._root()).as_posix() for index in indices]

    def skipped(self) -> tuple[str, ...]:
        """Files left out because they cannot be read."""
        return _listing(self._root(), self.skip_bad).skipped

    def fingerprint(self) -> str:
        """Digest of the resolution and of every file's relative path and bytes."""
        return _fingerprint(self._root(), self.resolution, self.skip_bad)

    def _root(self) -> Path:
        root = Path(self.path).expanduser().absolute()
        if not root.is_dir():
            raise DataError(f"folder:{self.path}: there is no folder {root}", hint="check the path")
        return root


@functools.lru_cache(maxsize=8)
def _listing(root: Path, skip_bad: bool) -> _Listing:
    if (root / "train").is_dir() and (root / "test").is_dir():
        bases: dict[Split, Path] = {"train": root / "train", "test": root / "test"}
        files: dict[Split, tuple[Path, ...]] = {split: image_files(base) for split, base in bases.items()}
    else:
        bases = {"train": root, "test": root}
        every = image_files(root)
        held_out = {path for path in every if _share(path.relative_to(root)) < TEST_SHARE}
        files = {
            "train": tuple(path for path in every if path not in held_out),
            "test": tuple(path for path in every if path in held_out),
        }
    skipped: dict[Path, str] = {}
    if skip_bad:
        reasons = {path: why_unreadable(path) for paths in files.values() for path in paths}
        skipped = {path: reason for path, reason in reasons.items() if reason is not None}
        files = {split: tuple(path for path in paths if path not in skipped) for split, paths in files.items()}
    if not any(files.values()):
        raise DataError(f"{root}: no images", hint=f"expected files named {', '.join('*' + name for name in FORMATS)}")
    parts = {split: [path.relative_to(bases[split]).parts for path in files[split]] for split in files}
    return _Listing(files, *_classes(parts), tuple(skipped.values()))


def _classes(parts: dict[Split, list[tuple[str, ...]]]) -> tuple[dict[Split, np.ndarray], tuple[str, ...]]:
    """Labels and class names from relative paths: the first folder, if every file is in one of at least two."""
    every = [path for paths in parts.values() for path in paths]
    names = sorted({path[0] for path in every})
    if len(names) < 2 or any(len(path) == 1 for path in every):
        return {split: np.full(len(paths), -1) for split, paths in parts.items()}, ()
    number = {name: label for label, name in enumerate(names)}
    labels = {split: np.array([number[path[0]] for path in paths], dtype=np.int64) for split, paths in parts.items()}
    return labels, tuple(names)


def _share(relative: Path) -> float:
    """A uniform in [0, 1) that depends on the relative path alone."""
    word = hashlib.sha256(relative.as_posix().encode()).digest()[:8]
    return int.from_bytes(word, "big") / 2.0**64


@functools.lru_cache(maxsize=8)
def _frame(root: Path, resolution: int | None, skip_bad: bool) -> Frame:
    files = _listing(root, skip_bad).files
    return shared_frame([*files["train"], *files["test"]], resolution, owner=f"folder:{root}")


@functools.lru_cache(maxsize=8)
def _fingerprint(root: Path, resolution: int | None, skip_bad: bool) -> str:
    digest = hashlib.sha256(str(resolution).encode())
    for split, files in _listing(root, skip_bad).files.items():
        for path in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{split} {path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
