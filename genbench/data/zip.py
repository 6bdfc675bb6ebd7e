"""A zip file of images: `zip:PATH`, read member by member and never unpacked to disk.

All image files at any depth are read, in the order of their names; a `dataset.json` with `labels` (as EDM's tools write
it) gives classes. They must share one size, or a resolution be given. All images belong to one split, `train`: the file
is for samples and for references.
"""

from __future__ import annotations

import functools
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from genbench.core.dataset import register_dataset
from genbench.core.errors import DataError
from genbench.data._archive import MAX_BYTES, ImageArchive, Listing, frame_of_all, readable
from genbench.data._images import FORMATS, Member

LABELS = "dataset.json"


@register_dataset("zip")
@dataclass(frozen=True)
class Zip(ImageArchive):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    takes_argument = True
    source = "the user's"

    path: str
    """The file; `~` is the home folder."""
    resolution: int | None = None
    """Side in pixels to cut and resize to; None keeps the images as they are."""
    skip_bad: bool = False
    """Leave out members that cannot be read, instead of refusing the file."""

    @property
    def side(self) -> int | None:
        """The resolution that is asked for."""
        return self.resolution

    def listing(self) -> Listing:
        """Image members by name."""
        path = self._file()
        return _listing(path, self.resolution, self.skip_bad, path.stat().st_mtime_ns)

    def read(self, names: Sequence[str]) -> Iterator[Member]:
        """Members by name, in order."""
        return _members(self._file(), names)

    def _file(self) -> Path:
        path = Path(self.path).expanduser().absolute()
        if not path.is_file():
            raise DataError(f"zip:{self.path}: there is no file {path}", hint="check the path")
        return path


@functools.lru_cache(maxsize=4)
def _listing(path: Path, resolution: int | None, skip_bad: bool, modified: int) -> Listing:
    """Look through the file; `modified` makes a file that was written again a new entry of the cache."""
    try:
        with zipfile.ZipFile(path) as archive:
            every = [info.filename for info in archive.infolist() if not info.is_dir()]
            labels = json.loads(archive.read(LABELS))["labels"] if LABELS in every else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a zip file: {error}", hint="check that it is whole") from error
    pictures = sorted(name for name in every if PurePosixPath(name).suffix.lower() in FORMATS)
    named = (
        zip(pictures, _members(path, pictures), strict=True) if skip_bad else ((name, _NOTHING) for name in pictures)
    )
    names, skipped = readable(named, skip_bad=skip_bad)
    frame = frame_of_all(_members(path, names), resolution, owner=f"zip:{path}")
    return Listing(tuple(names), None if labels is None else _classes(labels, names, path), skipped, frame)


def _members(path: Path, names: Sequence[str]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for name in names:
            size = archive.getinfo(name).file_size
            if size > MAX_BYTES:
                raise DataError(f"{path}: member `{name}` unpacks to {size} bytes, expected at most {MAX_BYTES}")
            try:
                content = archive.read(name)
            except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise DataError(f"{path}: member `{name}` cannot be unpacked: {error}") from error
            yield Member(f"{path}/{name}", content)


def _classes(labels: object, names: Sequence[str], path: Path) -> np.ndarray:
    """Class of each member from rows `[name, class]`."""
    try:
        known = {str(row[0]): int(row[1]) for row in labels}  # type: ignore[attr-defined]
        return np.array([known[name] for name in names], dtype=np.int64)
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path}: `{LABELS}` gives no class for each image: {error}") from error


_NOTHING = Member("", b"")
