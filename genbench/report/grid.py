"""Grids of samples: what the numbers of a table look like."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]

FILES = {
    "samples": "grid.png",
    "reconstructions": "reconstructions.png",
    "traversals": "traversals.png",
    "interpolations": "interpolations.png",
    "densities": "densities.png",
    "sounds": "sounds.html",
    "texts": "texts.png",
    "captions": "captions.png",
}
"""Kinds of pictures of a run, and what their files are called in its folder; sounds are a page that plays."""
LEGIBLE = 64
"""Side in screen pixels up to which small images are enlarged, by a whole factor."""
_GAP = 2
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_FONT_SIZE = 14
_MARGIN = 8
_LABEL_WIDTH = 280  # longer labels end in dots
_LINE = _FONT_SIZE + 6


def sample_grid(images: Pixels, *, columns: int, scale: int | None = None, levels: int = 256) -> Image.Image:
    """Images in reading order on white, enlarged without smoothing.

    Args:
        images: (N, C, H, W) uint8, values 0 .. levels-1, C = 1 or 3.
        columns: images in one line; the last line may be shorter.
        scale: whole factor of enlargement; None makes small images `LEGIBLE` pixels high.
        levels: number of values a pixel can take.

    Raises:
        ValueError: images of another type, shape or range, or no columns.
    """
    if columns < 1:
        raise ValueError(f"a grid needs at least one column, found {columns}")
    tiles = _tiles(images, levels, scale)
    rows = -(-len(tiles) // columns)
    side_y, side_x = tiles.shape[1:3]
    size = (columns * (side_x + _GAP) - _GAP, max(rows * (side_y + _GAP) - _GAP, 1))
    grid = Image.new("RGB", size, _PAPER)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        grid.paste(Image.fromarray(tile), (column * (side_x + _GAP), row * (side_y + _GAP)))
    return grid


def comparison_grid(
    rows: Mapping[str, Pixels], *, columns: int = 12, scale: int | None = None, levels: int = 256
) -> Image.Image:
    """One labelled line of samples for each model; column k shows sample k of every model.

    Args:
        rows: label -> (N, C, H, W) uint8, values 0 .. levels-1; lines keep the order of the mapping.
        columns: samples shown of each; a row with fewer leaves the rest white.
        scale: whole factor of enlargement; None makes small images `LEGIBLE` pixels high.
        levels: number of values a pixel can take.

    Raises:
        ValueError: no rows, or images of another type, shape or range.
    """
    if not rows:
        raise ValueError("a comparison needs at least one row of images")
    strips = [sample_grid(images[:columns], columns=columns, scale=scale, levels=levels) for images in rows.values()]
    font = ImageFont.load_default(size=_FONT_SIZE)
    labels = [_shortened(label, font) for label in rows]
    left = 2 * _MARGIN + round(max(font.getlength(label) for label in labels))
    width = left + max(strip.width for strip in strips) + _MARGIN
    heights = [max(strip.height, _FONT_SIZE + 4) for strip in strips]  # room for one line of text
    page = Image.new("RGB", (width, sum(heights) + _GAP * (len(strips) - 1) + 2 * _MARGIN), _PAPER)
    _draw(page, labels, strips, heights, left, font)
    return page


def sectioned_grid(
    sections: Mapping[str, Mapping[str, Pixels]],
    *,
    heads: Sequence[str] = (),
    caption: str = "",
    scale: int | None = None,
    levels: int = 256,
) -> Image.Image:
    """For each model its name and labelled rows of images below it, all columns in line.

    Args:
        sections: name -> label -> (N, C, H, W) uint8, values 0 .. levels-1, all of one height and width.
        heads: words above the first columns of every section; those wider than their column are left out.
        caption: lines above everything; what is wider than the page is cut.
        scale: whole factor of enlargement; None makes small images `LEGIBLE` pixels high.
        levels: number of values a pixel can take.

    Raises:
        ValueError: a section without rows, or images of another type, shape or range.
    """
    if not sections or not all(sections.values()):
        raise ValueError("a page of sections needs at least one row of images in each")
    font = ImageFont.load_default(size=_FONT_SIZE)
    columns = max(len(images) for rows in sections.values() for images in rows.values())
    labels = [_shortened(label, font) for rows in sections.values() for label in rows]
    left = 2 * _MARGIN + round(max(font.getlength(label) for label in labels))
    bodies = [_section(rows, heads, columns, scale, levels, left, font) for rows in sections.values()]
    names = [_shortened(name, font, width=max(body.width for body in bodies)) for name in sections]
    width = max(body.width for body in bodies) + _MARGIN
    lines = caption.split("\n") if caption else []
    top = _LINE * len(lines) + _MARGIN
    page = Image.new("RGB", (width, top + sum(body.height + _LINE + _MARGIN for body in bodies)), _PAPER)
    pen, y = ImageDraw.Draw(page), top
    for number, line in enumerate(lines):
        shown = _shortened(line, font, width=width - 2 * _MARGIN)
        pen.text((_MARGIN, _MARGIN // 2 + _LINE * number), shown, fill=_INK, font=font)
    for name, body in zip(names, bodies, strict=True):
        pen.text((_MARGIN, y), name, fill=_INK, font=font)
        page.paste(body, (0, y + _LINE))
        y += _LINE + body.height + _MARGIN
    return page


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG so that a reader finds the old file or the whole new one, never a part."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _draw(
    page: Image.Image,
    labels: Sequence[str],
    strips: Sequence[Image.Image],
    heights: Sequence[int],
    left: int,
    font: Font,
    *,
    top: int = _MARGIN,
) -> None:
    pen, y = ImageDraw.Draw(page), top
    for label, strip, height in zip(labels, strips, heights, strict=True):
        x = left - _MARGIN - font.getlength(label)
        box = font.getbbox("Ag")  # one box for all, so that baselines agree whatever the letters
        pen.text((x, y + (height - box[3] - box[1]) / 2), label, fill=_INK, font=font)
        page.paste(strip, (left, y + (height - strip.height) // 2))
        y += height + _GAP


def _section(
    rows: Mapping[str, Pixels],
    heads: Sequence[str],
    columns: int,
    scale: int | None,
    levels: int,
    left: int,
    font: Font,
) -> Image.Image:
    """Labelled rows, with words above their columns."""
    strips = [sample_grid(images, columns=columns, scale=scale, levels=levels) for images in rows.values()]
    step = (strips[0].width + _GAP) // columns
    shown = [head if font.getlength(head) <= step else "" for head in heads[:columns]]
    top = _LINE if any(shown) else 0
    heights = [max(strip.height, _FONT_SIZE + 4) for strip in strips]
    body = Image.new("RGB", (left + strips[0].width, top + sum(heights) + _GAP * (len(strips) - 1)), _PAPER)
    pen = ImageDraw.Draw(body)
    for column, head in enumerate(shown):
        pen.text((left + column * step + (step - _GAP - font.getlength(head)) / 2, 0), head, fill=_INK, font=font)
    labels = [_shortened(label, font) for label in rows]
    _draw(body, labels, strips, heights, left, font, top=top)
    return body


def _shortened(label: str, font: Font, *, width: float = _LABEL_WIDTH) -> str:
    """The label in one line, cut where it would be wider than its column."""
    shown = " ".join(label.split())
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown + "..."


def _tiles(images: Pixels, levels: int, scale: int | None) -> Pixels:
    """Images as (N, H * scale, W * scale, 3) uint8 with values 0 .. 255."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in {1, 3}:
        raise ValueError(f"expected uint8 images (N, 1 or 3, H, W), found {images.dtype} {images.shape}")
    if not 2 <= levels <= 256:
        raise ValueError(f"expected 2 to 256 levels, found {levels}")
    if images.size and int(images.max()) >= levels:
        raise ValueError(f"expected values 0 .. {levels - 1}, found {int(images.max())}")
    if scale is not None and scale < 1:
        raise ValueError(f"expected a whole scale of 1 or more, found {scale}")
    factor = scale or max(1, LEGIBLE // images.shape[2])
    shown = np.rint(images.astype(np.float32) * (255.0 / (levels - 1))).astype(np.uint8)
    rgb = np.repeat(shown, 3, axis=1) if shown.shape[1] == 1 else shown
    return rgb.transpose(0, 2, 3, 1).repeat(factor, axis=1).repeat(factor, axis=2)
