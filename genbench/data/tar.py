"""A webdataset tar file of images: `tar:PATH`, read member by member and never unpacked to disk.

Members that share a name up to its first dot are one example: one image and, if there, its class in a `.cls` file and
its caption in a `.txt` file; else the whole number `label` and the text `caption` of a `.json` file. Either all images
have a class or none has, and likewise captions. Captions are cut into words at white space.

Images are read in the order of their names; they must share one size, or a resolution be given. All of them belong to
one split, `train`: the file is for samples and for references. The file must not be compressed. What counts as an image
is in the module `_images`.
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from genbench.core.dataset import register_dataset
from genbench.core.errors import DataError
from genbench.data._archive import (
    MAX_BYTES,
    ImageArchive,
    Listing,
    all_or_none,
    listing_of,
    pictures_among,
    whole_number,
    words_of,
)
from genbench.data._files import Stamp, cached, existing
from genbench.data._images import Member

Places = Mapping[str, tuple[int, int]]
"""Member -> offset and size."""


@register_dataset("tar")
@dataclass(frozen=True)
class Tar(ImageArchive):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    kind: ClassVar[str] = "tar"

    def listing(self) -> Listing:
        """Image members by name."""
        return _listing(*existing(self.path, "tar"), self.resolution, self.skip_bad)

    def read(self, names: Sequence[str]) -> Iterator[Member]:
        """Members by name, in order."""
        path, stamp = existing(self.path, "tar")
        return _members(path, _places(path, stamp), names)


@cached
def _places(path: Path, stamp: Stamp) -> Places:
    """Where all files lie, from one pass over the headers."""
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as file:
            found = {
                str(PurePosixPath(member.name)): (member.offset_data, member.size)
                for member in archive
                if member.isreg() and not member.issparse()
            }
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # `tarfile` takes a broken header for the end
                raise ValueError(
                    f"after {len(found)} files, at byte {archive.offset}, there is neither a file nor the end"
                )
            return found
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        hint = "check that it is whole and not compressed"
        raise DataError(f"{path}: cannot be read as a tar file: {error}", hint=hint) from error


@cached
def _listing(path: Path, stamp: Stamp, resolution: int | None, skip_bad: bool) -> Listing:
    places = _places(path, stamp)
    names = pictures_among(list(places))
    _refuse_second_images(names, path)
    members = _members(path, places, names)
    found = listing_of(members, names, resolution=resolution, skip_bad=skip_bad, owner=f"tar:{path}")
    described = _descriptions(path, places, found.names)
    labels = _classes(path, places, found.names, described)
    captions = all_or_none(
        _beside(path, places, found.names, ".txt") or _said(described, "caption", str),
        found.names,
        "caption",
        str(path),
    )
    return dataclasses.replace(found, labels=labels, captions=None if captions is None else words_of(captions))


def _members(path: Path, places: Places, names: Sequence[str]) -> Iterator[Member]:
    with path.open("rb") as file:
        for name in names:
            offset, size = places[name]
            if size > MAX_BYTES:
                yield Member(f"{path}/{name}", problem=f"has {size} bytes, expected at most {MAX_BYTES}")
                continue
            file.seek(offset)
            yield Member(f"{path}/{name}", file.read(size))


def _refuse_second_images(names: Sequence[str], path: Path) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(_key(name), name)
        if other != name:
            raise DataError(
                f"{path}: `{other}` and `{name}` are two images of one example",
                hint="the name up to its first dot tells examples apart; keep one image in each",
            )


def _beside(path: Path, places: Places, names: Sequence[str], suffix: str) -> dict[str, str]:
    """Image -> text of the file beside it, where there is one."""
    known = [name for name in names if _key(name) + suffix in places]
    members = _members(path, places, [_key(name) + suffix for name in known])
    try:
        return {name: member.whole().decode().strip() for name, member in zip(known, members, strict=True)}
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a `{suffix}` file is no text in UTF-8: {error}") from error


def _descriptions(path: Path, places: Places, names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Image -> the object in the `.json` file beside it."""
    found = {}
    for name, text in _beside(path, places, names, ".json").items():
        try:
            described = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}/{_key(name)}.json: no JSON: {error}") from error
        if isinstance(described, dict):
            found[name] = described
    return found


def _said(described: Mapping[str, dict[str, object]], key: str, kind: type) -> dict[str, str]:
    """Image -> what its description says under a key, where that is of the kind asked for."""
    return {name: str(one[key]) for name, one in described.items() if type(one.get(key)) is kind}


def _classes(
    path: Path, places: Places, names: Sequence[str], described: Mapping[str, dict[str, object]]
) -> np.ndarray | None:
    """Class of each image, None where there are none."""
    found = _beside(path, places, names, ".cls") or _said(described, "label", int)
    given = all_or_none(found, names, "class", str(path))
    if given is None:
        return None
    try:
        return np.array([whole_number(text) for text in given], dtype=np.int64)
    except ValueError as error:
        raise DataError(
            f"{path}: a class is no whole number: {error}", hint="expected `.cls` files such as `7`"
        ) from error


def _key(name: str) -> str:
    """The name of an example: folder and file name up to its first dot."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))
