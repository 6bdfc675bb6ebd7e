"""An `.npz` file of images: `npz:PATH`.

Arrays have the shape (N, H, W), (N, H, W, C) or (N, C, H, W) with one or three channels and hold whole numbers 0 ..
levels-1, or floats with the setting `value_range`, rounded to the nearest level. Their names are `train` and `test` (or
`x_train` and `x_test`), or a single `images`, `x` or `arr_0`, of which a tenth, chosen by a hash of the index, becomes
`test`. Labels are optional: `train_labels` and `test_labels` (or `y_train` and `y_test`), or a single `labels`, `y` or
`arr_1`. ADM's sample files (`arr_0`, `arr_1`) are of this kind.

Pickled objects are never opened. Arrays that are stored without compression, as `np.savez` does, are checked against
their checksum once and mapped into memory, so that only the rows that are asked for are read; compressed ones are
unpacked as a whole.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.errors import DataError
from genbench.core.ranges import Range
from genbench.data._access import checked_indices, checked_split
from genbench.data._arrays import DAMAGE, StoredImages, ValueRange
from genbench.data._counter import key_of, uniforms
from genbench.data._files import Stamp, cached, existing

TEST_SHARE = 0.1
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train", "x_train"), "test": ("test", "x_test")}
SPLIT_LABELS: dict[Split, tuple[str, ...]] = {"train": ("train_labels", "y_train"), "test": ("test_labels", "y_test")}
SINGLE_NAMES = ("images", "x", "arr_0")
SINGLE_LABELS = ("labels", "y", "arr_1")
IMAGE_NAMES = (*SPLIT_NAMES["train"], *SINGLE_NAMES)
"""An array of one of these names is one of images."""

_LOCAL_HEADER = struct.Struct("<26xHH")  # APPNOTE 4.3.7: lengths of the name and of the extra field
_READ_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class _Content:
    images: dict[Split, StoredImages]
    places: dict[Split, np.ndarray]
    """(N,) place of each image of a split in its array."""
    labels: dict[Split, np.ndarray] | None
    """(N,) int64 per split."""

    def of(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Images (n, C, H, W) uint8 of a split."""
        return self.images[split].rows(self.places[split][rows])


@register_dataset("npz")
@dataclass(frozen=True)
class Npz(Dataset):
    """The user's images; (1 or 3, H, W), values 0 .. levels-1."""

    takes_argument = True
    source = "the user's"

    path: str
    """The file; `~` is the home folder."""
    levels: Annotated[int, Range(2, 256)] = 256
    """Values run over 0 .. levels-1; a larger value in the file is an error."""
    value_range: ValueRange = "uint8"
    """`uint8` for whole numbers 0 .. levels-1, `unit` for floats in [0, 1], `signed` for floats in [-1, 1]."""

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels is {self.levels}, expected 2 .. 256")
        if self.value_range != "uint8" and self.levels != 256:
            raise ValueError(f"value_range={self.value_range} gives 256 levels, but levels is {self.levels}")

    @property
    def spec(self) -> DataSpec:
        """Shape and classes as found in the file."""
        content = self._content()
        num_classes = 0 if content.labels is None else 1 + max(_greatest(v) for v in content.labels.values())
        return DataSpec(shape=content.images["train"].shape, levels=self.levels, num_classes=num_classes)

    def size(self, split: Split) -> int:
        """Number of images of a split."""
        return len(self._content().places[checked_split(split, self.splits, owner=f"npz:{self.path}")])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images in the file's order, with labels where there are any."""
        rows = self._rows(split, indices)
        return Batch(x=torch.from_numpy(self._content().of(split, rows)), y=self.labels(split, rows))

    def labels(self, split: Split, indices: Sequence[int] | np.ndarray) -> Tensor | None:
        """Classes, without reading a picture."""
        rows, labels = self._rows(split, indices), self._content().labels
        return None if labels is None else torch.from_numpy(labels[split][rows])

    def captions(self, split: Split, indices: Sequence[int] | np.ndarray) -> None:
        """None: such a file has no captions."""

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Places in the file, padded so that their order as text is the file's."""
        return [f"{place:08d}" for place in self._content().places[split][self._rows(split, indices)]]

    @property
    def divided_by_owner(self) -> bool:
        """Whether there is an array of its own for `test`."""
        images = self._content().images
        return images["train"] is not images["test"]

    def fingerprint(self) -> str:
        """Digest of the levels and of every image, as it is read, and label."""
        return _fingerprint(*existing(self.path, "npz"), self.levels, self.value_range)

    def _rows(self, split: Split, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return checked_indices(indices, size=self.size(split), owner=f"npz:{self.path}, {split}")

    def _content(self) -> _Content:
        return _read(*existing(self.path, "npz"), self.levels, self.value_range)


def array_forms(path: Path) -> dict[str, tuple[int, ...]]:
    """Names of the arrays of an `.npz` with the shape of each, read off the headers; empty where it is no such file.

    A shape is empty where its header cannot be read: whoever reads the array says why.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            found = {info.filename.removesuffix(".npy"): info for info in packed.infolist()}
            return {name: _shape(packed, info) for name, info in found.items()}
    except DAMAGE:
        return {}


def _shape(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    try:
        with packed.open(info) as content:
            return _form(content)[0]
    except DAMAGE:
        return ()


@cached
def _fingerprint(path: Path, stamp: Stamp, levels: int, value_range: ValueRange) -> str:
    content = _read(path, stamp, levels, value_range)
    meaning = "" if value_range == "uint8" else f" {value_range} nearest"
    digest = hashlib.sha256(f"npz {levels}{meaning}".encode())
    for split, places in content.places.items():
        stored = content.images[split]
        digest.update(f"{split} {(len(places), *stored.shape)}".encode())
        for block in stored.blocks(places):
            digest.update(block.tobytes())
        if content.labels is not None:
            digest.update(f"{split} {content.labels[split].shape}".encode() + content.labels[split].tobytes())
    return digest.hexdigest()[:16]


@cached
def _read(path: Path, stamp: Stamp, levels: int, value_range: ValueRange) -> _Content:
    """What the file holds.

    Raises:
        DataError: it is damaged, pickled, or holds no images.
    """
    try:
        with path.open("rb") as file:  # opened here, because `np.load` leaves a damaged file open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: a single array, expected an archive (.npz)", hint="write it with `np.savez`")
            return _content_of(archive, path, levels, value_range)
    except DAMAGE as error:
        hint = "write plain arrays with `np.savez`; pickled objects can run code and are not opened"
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from error


def _content_of(archive: np.lib.npyio.NpzFile, path: Path, levels: int, value_range: ValueRange) -> _Content:
    named = {split: _first(archive, names) for split, names in SPLIT_NAMES.items()}
    single = _first(archive, SINGLE_NAMES)

    def stored(name: str) -> StoredImages:
        return StoredImages(_array(archive, path, name), f"{path}: `{name}`", value_range, levels)

    if named["train"] is not None and named["test"] is not None:
        images = {split: stored(str(name)) for split, name in named.items()}
        labels = _matched(images, {s: _labels(archive, path, n) for s, n in SPLIT_LABELS.items()}, path)
        return _Content(images, {split: np.arange(len(part)) for split, part in images.items()}, labels)
    if single is not None:
        return _divided(stored(single), _labels(archive, path, SINGLE_LABELS), path)
    if {"mu", "sigma"} <= set(archive):
        raise DataError(
            f"{path}: holds moments of features and no images",
            hint="it is a statistics file, which can stand on either side of `genbench evaluate`",
        )
    raise DataError(
        f"{path}: holds {', '.join(sorted(archive)) or 'nothing'}, expected `train` and `test`, or `images`",
        hint="write it with `np.savez(path, images=...)`",
    )


def _array(archive: np.lib.npyio.NpzFile, path: Path, name: str) -> np.ndarray:
    """An array of the file, mapped where it is stored as it is."""
    packed = archive.zip
    assert packed is not None
    member = f"{name}.npy" if f"{name}.npy" in packed.namelist() else name
    info = packed.getinfo(member)
    header = _header(packed, info)
    if header is None:
        return np.asarray(archive[name])
    (shape, fortran, dtype), length = header
    if length + dtype.itemsize * int(np.prod(shape)) != info.file_size:
        raise ValueError(f"`{name}` has {info.file_size - length} bytes, which is not {dtype} of shape {shape}")
    with packed.open(info) as content:  # reads to the end, where the checksum is compared
        while content.read(_READ_BYTES):
            pass
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length + length
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _header(
    packed: zipfile.ZipFile, info: zipfile.ZipInfo
) -> tuple[tuple[tuple[int, ...], bool, np.dtype], int] | None:
    """Form of an array and length of its header, None where it is to be read as a whole."""
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with packed.open(info) as content:
        form = _form(content)
        return None if form[2].hasobject or not np.prod(form[0]) else (form, content.tell())


def _form(content: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array, by its header.

    Raises:
        ValueError: it is none of NumPy's.
    """
    version = np.lib.format.read_magic(content)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(content)
    if version in ((2, 0), (3, 0)):  # 3 differs from 2 in the names of fields, which images have not
        return np.lib.format.read_array_header_2_0(content)
    raise ValueError(f"an array of format {version}, expected 1, 2 or 3")


def _divided(images: StoredImages, labels: np.ndarray | None, path: Path) -> _Content:
    """A single array in two splits: which image is in which depends on its index alone."""
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{path}: {len(labels)} labels for {len(images)} images")
    held_out = uniforms(key_of("npz", "split"), np.arange(len(images)), 1)[:, 0] < TEST_SHARE
    places: dict[Split, np.ndarray] = {"train": np.flatnonzero(~held_out), "test": np.flatnonzero(held_out)}
    divided = None if labels is None else {split: labels[place] for split, place in places.items()}
    return _Content({"train": images, "test": images}, places, divided)


def _first(archive: Mapping[str, np.ndarray], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in archive), None)


def _matched(
    images: dict[Split, StoredImages], labels: Mapping[Split, np.ndarray | None], path: Path
) -> dict[Split, np.ndarray] | None:
    """The labels, checked against the images; None when no split has any."""
    if images["train"].shape != images["test"].shape:
        shapes = " and ".join(str(part.shape) for part in images.values())
        raise DataError(f"{path}: images of train and test differ in shape: {shapes}")
    given = {split: array for split, array in labels.items() if array is not None}
    if not given:
        return None
    for split in images:
        count = len(given[split]) if split in given else 0
        if count != len(images[split]):
            raise DataError(f"{path}: {count} labels for {len(images[split])} images of {split}")
    return given


def _labels(archive: Mapping[str, np.ndarray], path: Path, names: tuple[str, ...]) -> np.ndarray | None:
    name = _first(archive, names)
    if name is None:
        return None
    labels = archive[name]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise DataError(
            f"{path}: `{name}` is {labels.dtype} of shape {labels.shape}, expected whole numbers >= 0 of shape (N,)"
        )
    return labels.astype(np.int64)


def _greatest(labels: np.ndarray) -> int:
    return int(labels.max()) if labels.size else -1
