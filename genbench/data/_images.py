"""Folders of image files: what counts as an image, how it is decoded, and what is refused.

PNG, JPEG, WebP, BMP and GIF files with 8 bits per channel are read, grey as one channel and everything else as RGB;
palettes and black-and-white files are expanded, an alpha channel is dropped where it is opaque, and JPEG and WebP files
are turned as their EXIF tag says. Refused, by an error that names the file: 16-bit, CMYK, animated and transparent
images, images of more than `MAX_PIXELS`, and whatever does not decode to its end.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps
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


@dataclass(frozen=True)
class Member:
    """An image file inside an archive."""

    name: str
    """Archive and path within it, for messages."""
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | Member
"""Where an image file is: on disk, or in memory."""


@dataclass(frozen=True)
class Frame:
    """What an image file holds, by its header."""

    channels: int
    height: int
    width: int


def image_files(folder: Path) -> tuple[Path, ...]:
    """All image files under `folder`, at any depth, by relative path in the order of its text; hidden ones left out."""
    found = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.suffix.lower() in FORMATS and not any(part.startswith(".") for part in relative.parts):
            found.append(path)
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def frame_of(path: Source) -> Frame:
    """Channels and size of an image file, from its header alone.

    Raises:
        DataError: the file is no image, or one that is refused.
    """
    with _opened(path) as image:
        width, height = image.size
        if _is_photograph(image) and image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        return Frame(CHANNELS[image.mode], height, width)


def read_image(path: Source, channels: int, resolution: int | None) -> np.ndarray:
    """Decode one image: (channels, H, W) uint8.

    Args:
        path: the file.
        channels: 1 or 3; grey becomes RGB by repetition, RGB is never made grey.
        resolution: side of the square that is cut from the middle and resized (box filter to shrink, bicubic to
            enlarge), None to keep the image as it is.

    Raises:
        DataError: the file is damaged, or one that is refused.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image) if _is_photograph(image) else image
        plain = _opaque(path, upright).convert("L" if channels == 1 else "RGB")
        values = np.asarray(plain if resolution is None else _centred(plain, resolution))
    return np.ascontiguousarray(values.reshape(*values.shape[:2], channels).transpose(2, 0, 1))


def read_images(paths: Iterable[Source], channels: int, resolution: int | None) -> np.ndarray:
    """Decode images of one size: (N, channels, H, W) uint8."""
    return np.stack([read_image(path, channels, resolution) for path in paths])


def shared_frame(paths: Iterable[Source], resolution: int | None, *, owner: str) -> Frame:
    """The frame that all images have once they are read at `resolution`.

    Raises:
        DataError: they differ and no resolution is given.
    """
    frames = [(path, frame_of(path)) for path in paths]
    if resolution is not None:
        return Frame(max(frame.channels for _, frame in frames), resolution, resolution)
    first_path, first = frames[0]
    for path, frame in frames:
        if frame != first:
            raise DataError(
                f"{path}: {_spelt(frame)}, but {PurePath(str(first_path)).name} is {_spelt(first)}; all must be alike",
                hint=f"give a resolution to cut and resize them: `{owner}[resolution=32]`",
            )
    return first


def why_unreadable(path: Source) -> str | None:
    """Why an image cannot be read to its end, None when it can."""
    try:
        with _opened(path) as image:
            _opaque(path, image).convert("RGB")
    except DataError as error:
        return error.message
    return None


def _spelt(frame: Frame) -> str:
    return f"{frame.width} x {frame.height} {'grey' if frame.channels == 1 else 'RGB'}"


@contextmanager
def _opened(path: Source) -> Iterator[ImageFile]:
    """The opened image, its header checked; whatever Pillow raises becomes a `DataError` that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
            file = path if isinstance(path, Path) else io.BytesIO(path.content)
            with Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
                _check(path, image)
                yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        hint = "replace or delete the file, or leave it out knowingly with `skip_bad` (`--skip-bad`)"
        raise DataError(f"{path}: not a readable image: {error}", hint=hint) from error


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
