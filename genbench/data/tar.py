"""A webdataset tar file of images: `tar:PATH`, read member by member and never unpacked to disk.

Members that share a name up to its first dot are one example: an image and, if there, its class in a `.cls` file.
Images are read in the order of their names; they must share one size, or a resolution be given. All of them belong to
one split, `train`: the file is for samples and for references.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from genbench.core.dataset import register_dataset
from genbench.core.errors import DataError
from genbench.data._archive import MAX_BYTES, ImageArchive, Listing, frame_of_all, readable
from genbench.data._images import FORMATS, Member


@dataclass(frozen=True)
class _Index:
    """Where the members lie in the file."""

    places: dict[str, tuple[int, int]]
    """Name -> offset and size."""


@register_dataset("tar")
@dataclass(frozen=True)
class Tar(ImageArchive):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    takes_argument = True
    source = "the user's"

    path: str
    """The file, not compressed; `~` is the home folder."""
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
        path = self._file()
        return _members(path, _index(path, path.stat().st_mtime_ns), names)

    def _file(self) -> Path:
        path = Path(self.path).expanduser().absolute()
        if not path.is_file():
            raise DataError(f"tar:{self.path}: there is no file {path}", hint="check the path")
        return path


@functools.lru_cache(maxsize=4)
def _index(path: Path, modified: int) -> _Index:
    """Offsets of all files, from one pass over the headers."""
    try:
        with tarfile.open(path, "r:") as archive:
            return _Index({member.name: (member.offset_data, member.size) for member in archive if member.isfile()})
    except (OSError, tarfile.TarError, EOFError) as error:
        hint = "check that it is whole and not compressed"
        raise DataError(f"{path}: cannot be read as a tar file: {error}", hint=hint) from error


@functools.lru_cache(maxsize=4)
def _listing(path: Path, resolution: int | None, skip_bad: bool, modified: int) -> Listing:
    index = _index(path, modified)
    pictures = sorted(name for name in index.places if PurePosixPath(name).suffix.lower() in FORMATS)
    named = ((name, member) for name, member in zip(pictures, _members(path, index, pictures), strict=True))
    names, skipped = readable(named if skip_bad else ((name, _NOTHING) for name in pictures), skip_bad=skip_bad)
    frame = frame_of_all(_members(path, index, names), resolution, owner=f"tar:{path}")
    return Listing(tuple(names), _classes(path, index, names), skipped, frame)


def _members(path: Path, index: _Index, names: Sequence[str]) -> Iterator[Member]:
    with path.open("rb") as file:
        for name in names:
            offset, size = index.places[name]
            if size > MAX_BYTES:
                raise DataError(f"{path}: member `{name}` has {size} bytes, expected at most {MAX_BYTES}")
            file.seek(offset)
            yield Member(f"{path}/{name}", file.read(size))


def _classes(path: Path, index: _Index, names: Sequence[str]) -> np.ndarray | None:
    """Class of each image from the `.cls` file beside it, None where there is not one for each."""
    beside = [_key(name) + ".cls" for name in names]
    if not all(name in index.places for name in beside):
        return None
    try:
        return np.array([int(member.content) for member in _members(path, index, beside)], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{path}: a `.cls` file holds no whole number: {error}") from error


def _key(name: str) -> str:
    """The name of an example: folder and file name up to its first dot."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))


_NOTHING = Member("", b"")
