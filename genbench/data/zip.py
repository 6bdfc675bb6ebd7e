"""A zip file of images: `zip:PATH`, read member by member and never unpacked to disk.

All image files at any depth are read, in the order of their names; a `dataset.json` with `labels` (as EDM's tools write
it) gives classes. They must share one size, or a resolution be given. All images belong to one split, `train`: the file
is for samples and for references. Members are stored or deflated; encrypted ones are refused, and so is one that
unpacks to more than 256 MiB. What counts as an image is in the module `_images`.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from genbench.core.dataset import register_dataset
from genbench.core.errors import DataError
from genbench.data._archive import (
    MAX_BYTES,
    ImageArchive,
    Listing,
    listing_of,
    pictures_among,
    whole_number,
)
from genbench.data._files import Stamp, cached, existing
from genbench.data._images import Member

LABELS = "dataset.json"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE 4.3.7: signature, lengths of the name and of the extra field
_ENCRYPTED = 0x1  # APPNOTE 4.4.4


@register_dataset("zip")
@dataclass(frozen=True)
class Zip(ImageArchive):
    """The user's images; (1 or 3, H, W), values 0 .. 255."""

    kind: ClassVar[str] = "zip"

    def listing(self) -> Listing:
        """Image members by name."""
        return _listing(*existing(self.path, "zip"), self.resolution, self.skip_bad)

    def read(self, names: Sequence[str]) -> Iterator[Member]:
        """Members by name, in order."""
        path, stamp = existing(self.path, "zip")
        return _members(path, _directory(path, stamp), names)


@cached
def _directory(path: Path, stamp: Stamp) -> dict[str, zipfile.ZipInfo]:
    """Where the members lie, from the directory at the end of the file, which is read once."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    except (OSError, ValueError, IndexError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a zip file: {error}", hint="check that it is whole") from error
    by_name = {info.filename: info for info in infos}
    if len(by_name) < len(infos):
        twice = next(info.filename for info in infos if by_name[info.filename] is not info)
        raise DataError(f"{path}: holds two members `{twice}`", hint="give each its own name")
    return by_name


@cached
def _listing(path: Path, stamp: Stamp, resolution: int | None, skip_bad: bool) -> Listing:
    directory = _directory(path, stamp)
    names = pictures_among(list(directory))
    members = _members(path, directory, names)
    found = listing_of(members, names, resolution=resolution, skip_bad=skip_bad, owner=f"zip:{path}")
    if LABELS not in directory:
        return found
    (described,) = _members(path, directory, [LABELS])
    return dataclasses.replace(found, labels=_classes(described, found.names))


def _members(path: Path, directory: dict[str, zipfile.ZipInfo], names: Sequence[str]) -> Iterator[Member]:
    with path.open("rb") as file:
        for name in names:
            where = f"{path}/{name}"
            try:
                yield Member(where, _unpacked(file, directory[name]))
            except (OSError, ValueError, struct.error, zlib.error) as error:
                yield Member(where, problem=f"cannot be unpacked: {error}")


def _unpacked(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, checked against its size and checksum.

    Raises:
        ValueError, OSError, struct.error, zlib.error: they cannot be had.
    """
    if info.file_size > MAX_BYTES:
        raise ValueError(f"it unpacks to {info.file_size} bytes, expected at most {MAX_BYTES}")
    if info.flag_bits & _ENCRYPTED:
        raise ValueError("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compression method {info.compress_type}, expected stored or deflated")
    file.seek(info.header_offset)
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise ValueError("there is no member where the directory says")
    file.seek(name_length + extra_length, 1)
    content = file.read(min(info.compress_size, MAX_BYTES))
    if info.compress_type == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, info.file_size + 1)  # one byte too many shows
    if len(content) != info.file_size:
        raise ValueError(f"it does not unpack to the {info.file_size} bytes that the directory says")
    if zlib.crc32(content) != info.CRC:
        raise ValueError("the checksum does not match")
    return content


def _classes(described: Member, names: Sequence[str]) -> np.ndarray | None:
    """Class of each member from rows `[name, class]`, None where `labels` is null.

    Raises:
        DataError: some image has no class.
    """
    try:
        labels = json.loads(described.whole())["labels"]
        if labels is None:
            return None
        known = {str(name): whole_number(label) for name, label in labels}
        return np.array([known[name] for name in names], dtype=np.int64)
    except KeyError as error:
        raise DataError(
            f"{described}: gives {error} no class", hint='expected {"labels": [[name, class], ...]}'
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{described}: no labels: {error}", hint='expected {"labels": [[name, class], ...]}') from error
