"""Folders of image files: what counts as an image, how it is decoded, and what is refused.

PNG, JPEG, WebP, BMP and GIF files with 8 bits per channel are read, grey as one channel and everything else as RGB;
palettes and black-and-white files are expanded, an alpha channel is dropped where it is opaque, and JPEG and WebP files
are turned as their EXIF tag says. Refused, by an error that names the file: 16-bit, CMYK, animated and transparent
images, images of more than `MAX_PIXELS`, and whatever does not decode to its end.

Pictures are decoded by a few threads, since decoders release the interpreter's lock; results keep the files' order.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from genbench.core.errors import DataError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF"}
MAX_PIXELS = 1 << 26
"""Greatest number of pixels of a file, 8192 x 8192: larger ones are taken for decompression bombs."""
CHANNELS = {"1": 1, "L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "P": 3, "PA": 3}
"""Pillow's modes that are read, and the number of channels that comes of them."""
ORIENTATION = 0x0112
"""EXIF tag of how the camera was held: 1 upright, 5 .. 8 on its side."""
WORKERS = min(4, max(2, os.cpu_count() or 1))
"""Threads that decode."""
_BLOCK = 256  # sources held in memory at once; archives hand over bytes
_TASK = 8  # sources in one task of a thread: handing over tiny pictures one by one costs as much as decoding them
_SKIP_HINT = "replace or delete the file, or leave it out knowingly with `skip_bad` (`--skip-bad`)"


@dataclass(frozen=True)
class Member:
    """An image file inside an archive."""

    name: str
    """Archive and path within it, for messages."""
    content: bytes = b""
    problem: str | None = None
    """Why the archive could not give the bytes, None when it did."""

    def __str__(self) -> str:
        return self.name

    def whole(self) -> bytes:
        """The bytes.

        Raises:
            DataError: the archive could not give them.
        """
        if self.problem is not None:
            raise DataError(f"{self.name}: {self.problem}", hint=_SKIP_HINT)
        return self.content


Source = Path | Member
"""Where an image file is: on disk, or in memory."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Frame:
    """What an image file holds, by its header."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Seen:
    """What one look at a source found."""

    name: str
    frame: Frame | None
    problem: DataError | None
    """Why it cannot be read, None when it can."""
    digest: str = ""
    """SHA-256 of the bytes of a member; empty for files."""


def image_files(folder: Path) -> tuple[Path, ...]:
    """All image files under `folder`, at any depth, by relative path in the order of its text; hidden ones left out."""
    found = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.suffix.lower() in FORMATS and not is_hidden(relative.parts) and not path.is_dir():
            found.append(path)
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def is_hidden(parts: Sequence[str]) -> bool:
    """Whether a path is one that file managers hide, or that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def read_images(sources: Iterable[Source], channels: int, resolution: int | None) -> np.ndarray:
    """Decode images of one size: (N, channels, H, W) uint8, in order; at least one.

    Args:
        sources: the files.
        channels: 1 or 3; grey becomes RGB by repetition, RGB is never made grey.
        resolution: side of the square that is cut from the middle and resized (box filter to shrink, bicubic to
            enlarge), None to keep the images as they are.

    Raises:
        DataError: a file is damaged, or one that is refused; the first in order is named.
    """
    with _unwarned():
        return np.stack(list(_in_order(lambda source: _decoded(source, channels, resolution), sources)))


def survey(sources: Iterable[Source], *, whole: bool) -> list[Seen]:
    """Look at sources one after the other, holding few of them in memory.

    Args:
        sources: the files.
        whole: decode each to its end; otherwise its header is enough.
    """
    with _unwarned():
        return list(_in_order(lambda source: _seen(source, whole=whole), sources))


def shared_frame(paths: Iterable[Source], resolution: int | None, *, owner: str) -> Frame:
    """The frame that all images have once they are read at `resolution`.

    Raises:
        DataError: there are none, some cannot be read, or they differ and no resolution is given.
    """
    return frame_of_all(survey(paths, whole=False), resolution, owner=owner)


def frame_of_all(seen: Sequence[Seen], resolution: int | None, *, owner: str) -> Frame:
    """The frame of sources that were looked at; errors as `shared_frame`."""
    if not seen:
        names = ", ".join(f"*{suffix}" for suffix in FORMATS)
        raise DataError(f"{owner}: no images", hint=f"expected files named {names}")
    problems = [one.problem for one in seen if one.problem is not None]
    if problems:
        more = f" (the first of {len(problems)} bad files among {len(seen)})" if len(problems) > 1 else ""
        raise DataError(f"{problems[0].message}{more}", hint=problems[0].hint) from problems[0]
    frames = [(one.name, one.frame) for one in seen if one.frame is not None]
    first_name, first = frames[0]
    if resolution is not None:
        return Frame(max(frame.channels for _, frame in frames), resolution, resolution)
    odd = [(name, frame) for name, frame in frames if frame != first]
    if odd:
        name, frame = odd[0]
        raise DataError(
            f"{name}: {_spelt(frame)}, but {PurePath(first_name).name} is {_spelt(first)}; all must be alike, and "
            f"{len(odd)} of {len(frames)} differ from the first",
            hint=f"give a resolution to cut and resize them: `{owner}[resolution=32]`",
        )
    return first


def _seen(source: Source, *, whole: bool) -> Seen:
    try:
        digest = hashlib.sha256(source.whole()).hexdigest() if isinstance(source, Member) else ""
        with _opened(source) as image:
            frame = _frame_of(image)
            if whole:
                _opaque(source, image).convert("RGB")
        return Seen(str(source), frame, None, digest)
    except DataError as error:
        return Seen(str(source), None, error)


def _frame_of(image: ImageFile) -> Frame:
    """Channels and size of an opened image, from its header alone."""
    width, height = image.size
    if _is_photograph(image) and image.getexif().get(ORIENTATION, 1) >= 5:
        width, height = height, width
    return Frame(CHANNELS[image.mode], height, width)


def _decoded(source: Source, channels: int, resolution: int | None) -> np.ndarray:
    with _opened(source) as image:
        upright = ImageOps.exif_transpose(image) if _is_photograph(image) else image
        plain = _opaque(source, upright).convert("L" if channels == 1 else "RGB")
        values = np.asarray(plain if resolution is None else _centred(plain, resolution))
    return np.ascontiguousarray(values.reshape(*values.shape[:2], channels).transpose(2, 0, 1))


def _in_order(look: Callable[[Source], Result], sources: Iterable[Source]) -> Iterator[Result]:
    """Results in the order of the sources, from a few threads."""
    remaining = iter(sources)
    with ThreadPoolExecutor(WORKERS) as pool:
        while block := list(itertools.islice(remaining, _BLOCK)):
            parts = [block[start : start + _TASK] for start in range(0, len(block), _TASK)]
            for results in pool.map(lambda part: [look(source) for source in part], parts):
                yield from results


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without Pillow's warning of many pixels, since `MAX_PIXELS` is stricter; filters are no thread's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _spelt(frame: Frame) -> str:
    return f"{frame.width} x {frame.height} {'grey' if frame.channels == 1 else 'RGB'}"


@contextmanager
def _opened(source: Source) -> Iterator[ImageFile]:
    """The opened image, its header checked; whatever Pillow raises becomes a `DataError` that names the file."""
    file = source if isinstance(source, Path) else io.BytesIO(source.whole())
    try:
        with Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
            _check(source, image)
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{source}: {error}", hint=_SKIP_HINT) from error
    except UnidentifiedImageError as error:  # its text names an object in memory
        known = ", ".join(dict.fromkeys(FORMATS.values()))
        raise DataError(f"{source}: not a readable image: none of {known}", hint=_SKIP_HINT) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{source}: not a readable image: {error}", hint=_SKIP_HINT) from error


def _check(path: Source, image: ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{path}: {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}")
    if image.mode not in CHANNELS:
        raise DataError(
            f"{path}: mode {image.mode}, expected 8-bit grey or RGB", hint="convert it to 8-bit RGB, and say how"
        )
    if any(";16" in str(tile.args) for tile in image.tile):  # Pillow would drop the lower byte silently
        raise DataError(f"{path}: 16 bits per channel, expected 8", hint="convert it to 8-bit RGB, and say how")
    if isinstance(image, PngImageFile | WebPImageFile | GifImageFile) and image.n_frames > 1:
        raise DataError(f"{path}: an animation, expected a single picture")


def _is_photograph(image: Image.Image) -> bool:
    """Whether the EXIF tag counts: in a PNG it may follow the pixels, which the header pass must not decode."""
    return image.format != "PNG"


def _opaque(path: Source, image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    full = image.convert("RGBA")
    if full.getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{path}: is partly transparent", hint="paint it on a background of your choice first")
    return full if CHANNELS[image.mode] == 3 else full.convert("L")


def _centred(image: Image.Image, resolution: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    kind = Image.Resampling.BOX if side >= resolution else Image.Resampling.BICUBIC
    return square.resize((resolution, resolution), kind)
