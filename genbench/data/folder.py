"""A folder of PNG, JPEG, WebP, BMP or GIF images: `folder:PATH`.

All image files at any depth are read, in the order of their relative paths. If there are sub-folders `train` and
`test`, they are the splits and nothing beside them is read; otherwise a tenth of the files, chosen by a hash of the
relative path, is `test`, so that files that come or go later move no other. If every image of a split lies in a
sub-folder and there are at least two of these, their sorted names are the classes.

All images must share one size and be all grey or all RGB, unless a resolution is given: then the largest square in the
middle is cut out and resized (box filter to shrink, bicubic to enlarge, both with antialiasing), and grey images among
RGB ones become RGB. Files are decoded when they are asked for; which files there are is found out once for each object.
What counts as an image is in the module `_images`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.core.ranges import Count
from genbench.data._access import checked_indices, checked_split
from genbench.data._images import FORMATS, Frame, image_files, read_images, shared_frame, survey

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
    resolution: Count | None = None
    """Side in pixels to cut and resize to; None keeps the images as they are."""
    skip_bad: bool = False
    """Leave out files that cannot be read, instead of refusing the folder; each is then decoded once more."""

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}, expected at least 1")

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the folder, with 256 levels."""
        frame, classes = self._frame, self._listing.classes
        return DataSpec(shape=(frame.channels, frame.height, frame.width), num_classes=len(classes))

    def size(self, split: Split) -> int:
        """Number of files of a split."""
        return len(self._listing.files[checked_split(split, self.splits, owner=f"folder:{self.path}")])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Decoded images, with the sub-folder as label where sub-folders are classes."""
        rows = self._rows(split, indices)
        frame, listing = self._frame, self._listing
        if not rows.size:
            images = np.zeros((0, frame.channels, frame.height, frame.width), dtype=np.uint8)
        else:
            files = listing.files[split]
            images = read_images([files[row] for row in rows], frame.channels, self.resolution)
        return Batch(x=torch.from_numpy(images), y=self.labels(split, rows))

    def labels(self, split: Split, indices: Sequence[int] | np.ndarray) -> Tensor | None:
        """Sub-folders as classes, without decoding a picture."""
        rows, listing = self._rows(split, indices), self._listing
        return torch.from_numpy(listing.labels[split][rows]) if listing.classes else None

    def captions(self, split: Split, indices: Sequence[int] | np.ndarray) -> None:
        """None: a folder is pictures alone, whatever else lies in it."""

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Relative paths of the files."""
        rows = self._rows(split, indices)
        root, files = self._root(), self._listing.files[split]
        return [files[row].relative_to(root).as_posix() for row in rows]

    def skipped(self) -> tuple[str, ...]:
        """Files left out because they cannot be read."""
        return self._listing.skipped

    @property
    def divided_by_owner(self) -> bool:
        """Whether there are sub-folders `train` and `test`."""
        return _own_split(self._root())

    def fingerprint(self) -> str:
        """Digest of the resolution and of every file's relative path and bytes."""
        return self._digest

    # Kept with the object and nowhere else: another object sees the folder as it is by then.

    @functools.cached_property
    def _listing(self) -> _Listing:
        return _listed(self._root(), skip_bad=self.skip_bad)

    @functools.cached_property
    def _frame(self) -> Frame:
        files = self._listing.files
        return shared_frame([*files["train"], *files["test"]], self.resolution, owner=f"folder:{self._root()}")

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(str(self.resolution).encode())
        for split, files in self._listing.files.items():
            for path in files:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{split} {path.relative_to(self._root()).as_posix()} {content}\n".encode())
        return digest.hexdigest()[:16]

    def _rows(self, split: Split, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return checked_indices(indices, size=self.size(split), owner=f"folder:{self.path}, {split}")

    def _root(self) -> Path:
        root = Path(self.path).expanduser().absolute()
        if not root.is_dir():
            raise DataError(f"folder:{self.path}: there is no folder {root}", hint="check the path")
        return root


def _own_split(root: Path) -> bool:
    return (root / "train").is_dir() and (root / "test").is_dir()


def _listed(root: Path, *, skip_bad: bool) -> _Listing:
    if _own_split(root):
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
        paths = sorted({path for part in files.values() for path in part})
        seen = zip(paths, survey(paths, whole=True), strict=True)
        skipped = {path: one.problem.message for path, one in seen if one.problem is not None}
        files = {split: tuple(path for path in part if path not in skipped) for split, part in files.items()}
    if not any(files.values()):
        left_out = f": all {len(skipped)} are bad, {next(iter(skipped.values()))}" if skipped else ""
        hint = f"expected files named {', '.join('*' + name for name in FORMATS)}"
        raise DataError(f"{root}: no images{left_out}", hint=hint)
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
