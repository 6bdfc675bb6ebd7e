"""Pictures with the words they were drawn for below them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from genbench.report.grid import Font, Pixels, sample_grid

LEAST_SIDE = 104
"""Side of a picture on the page, in pixels, so that words find room below it; smaller ones are enlarged."""
MOST_SIDE = 208
"""Larger ones are shrunk."""
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)
_FONT_SIZE, _LINE = 12, 15
_GAP, _MARGIN = 8, 10
_MOST_LINES = 8
"""Of a caption; longer ones end in dots."""
_LABEL_WIDTH = 260


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioned:
    """Pictures, a short remark on each, and its words."""

    images: Pixels
    """(N, 1 or 3, H, W) uint8, values 0 .. 255."""
    remarks: Sequence[str]
    captions: Sequence[str]


def captioned_page(sections: Mapping[str, Captioned], *, columns: int = 5) -> Image.Image:
    """Headed sections of pictures in reading order, each picture with its remark and its words below it.

    Args:
        sections: heading -> pictures, in order.
        columns: pictures in one line.

    Raises:
        ValueError: no pictures, or not as many remarks and captions as pictures.
    """
    if columns < 1 or not sections or not all(len(part.images) for part in sections.values()):
        raise ValueError("a page of captioned pictures needs at least one column, and a picture in each section")
    if any(len({len(part.images), len(part.remarks), len(part.captions)}) > 1 for part in sections.values()):
        raise ValueError("each picture of a page has one remark and one caption")
    font = ImageFont.load_default(size=_FONT_SIZE)
    bodies = [_lines_of_pictures(part, columns, font) for part in sections.values()]
    width = max(max(body.width for body in bodies), *(round(font.getlength(head)) for head in sections)) + 2 * _MARGIN
    page = Image.new("RGB", (width, sum(body.height + _LINE + 2 * _MARGIN for body in bodies) + _MARGIN), _PAPER)
    pen, y = ImageDraw.Draw(page), _MARGIN
    for head, body in zip(sections, bodies, strict=True):
        pen.text((_MARGIN, y), head, fill=_INK, font=font)
        page.paste(body, (_MARGIN, y + _LINE + _MARGIN // 2))
        y += body.height + _LINE + 2 * _MARGIN
    return page


def prompted_rows(rows: Mapping[str, Pixels], captions: Sequence[str], remarks: Sequence[str]) -> Image.Image:
    """One labelled line of pictures for each model; the words of each column stand below its last picture.

    Args:
        rows: label -> (N, 1 or 3, H, W) uint8, values 0 .. 255; picture k of every line was drawn for caption k.
        captions: N.
        remarks: N short words on the captions; empty for none.

    Raises:
        ValueError: no rows, or lines of another length.
    """
    if not rows or any(len(images) != len(captions) for images in rows.values()) or len(remarks) != len(captions):
        raise ValueError("each line of a page of prompts has one picture, and each column one remark, for each caption")
    font = ImageFont.load_default(size=_FONT_SIZE)
    labels = [_wrapped(label, font, _LABEL_WIDTH, break_at=",") for label in rows]
    left = 2 * _MARGIN + round(max(font.getlength(line) for label in labels for line in label))
    lines = [[_tile(image) for image in images] for images in rows.values()]
    side_x, side_y = lines[0][0].size
    heights = [max(side_y, _LINE * len(label)) + _GAP for label in labels]
    words = [_words(remark, caption, font, side_x) for remark, caption in zip(remarks, captions, strict=True)]
    foot = _LINE * max(map(len, words))
    page = Image.new(
        "RGB", (left + len(captions) * (side_x + _GAP) + _MARGIN, sum(heights) + foot + 2 * _MARGIN), _PAPER
    )
    pen, y = ImageDraw.Draw(page), _MARGIN
    for label, tiles, height in zip(labels, lines, heights, strict=True):
        top = y + (height - _GAP - _LINE * len(label)) // 2
        pen.multiline_text((_MARGIN, top), "\n".join(label), fill=_INK, font=font, spacing=_LINE - _FONT_SIZE)
        for column, tile in enumerate(tiles):
            page.paste(tile, (left + column * (side_x + _GAP), y))
        y += height
    for column, text in enumerate(words):
        _write(pen, (left + column * (side_x + _GAP), y), text, font)
    return page


def _lines_of_pictures(part: Captioned, columns: int, font: Font) -> Image.Image:
    tiles = [_tile(image) for image in part.images]
    side_x, side_y = tiles[0].size
    words = [_words(*pair, font, side_x) for pair in zip(part.remarks, part.captions, strict=True)]
    starts = range(0, len(tiles), columns)
    heights = [side_y + 4 + _LINE * max(map(len, words[i : i + columns])) + _GAP for i in starts]
    body = Image.new("RGB", (min(columns, len(tiles)) * (side_x + _GAP) - _GAP, sum(heights)), _PAPER)
    pen, y = ImageDraw.Draw(body), 0
    for start, height in zip(starts, heights, strict=True):
        for place in range(start, min(start + columns, len(tiles))):
            x = (place - start) * (side_x + _GAP)
            body.paste(tiles[place], (x, y))
            _write(pen, (x, y + side_y + 4), words[place], font)
        y += height
    return body


Line = tuple[str, bool]
"""A line of text, and whether it is a remark."""


def _words(remark: str, caption: str, font: Font, width: float) -> list[Line]:
    head = [(line, True) for line in _wrapped(remark, font, width)] if remark else []
    return head + [(line, False) for line in _wrapped(caption, font, width)]


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], lines: Sequence[Line], font: Font) -> None:
    for number, (line, remark) in enumerate(lines):
        pen.text((at[0], at[1] + number * _LINE), line, fill=_FAINT if remark else _INK, font=font)


def _tile(image: Pixels) -> Image.Image:
    """One picture, enlarged by a whole factor or shrunk."""
    side = image.shape[-1]
    tile = sample_grid(image[None], columns=1, scale=max(1, -(-LEAST_SIDE // side)))
    if tile.width <= MOST_SIDE:
        return tile
    return tile.resize((MOST_SIDE, round(tile.height * MOST_SIDE / tile.width)), Image.Resampling.BOX)


def _wrapped(text: str, font: Font, width: float, *, break_at: str = " ") -> list[str]:
    """The text in lines no wider than that, broken at a character where it can be, and anywhere where it must."""
    parts = " ".join(text.split()).split(break_at)
    pieces = [part + break_at for part in parts[:-1]] + parts[-1:]
    lines = [""]
    for piece in pieces:
        rest = piece
        if lines[-1] and font.getlength((lines[-1] + rest).rstrip()) > width:
            lines.append("")
        while font.getlength((lines[-1] + rest).rstrip()) > width and len(rest) > 1:
            cut = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or font.getlength(rest[:n]) <= width)
            lines[-1:] = [rest[:cut], ""]
            rest = rest[cut:]
        lines[-1] += rest
    shown = [line.rstrip() for line in lines]
    if len(shown) <= _MOST_LINES:
        return shown
    last = shown[_MOST_LINES - 1]
    while last and font.getlength(last + "...") > width:
        last = last[:-1]
    return [*shown[: _MOST_LINES - 1], last + "..."]
