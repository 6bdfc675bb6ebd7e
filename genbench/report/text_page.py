"""Pictures with the texts that were said of them under them, one line of texts for each who spoke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from genbench.report.grid import Font, Pixels, sample_grid

CELL = 230
"""Width of a column in screen pixels: room for half of a long caption."""
_SIDE = 128
_FONT_SIZE = 13
_LINE = _FONT_SIZE + 4
_MARGIN = 10
_PAPER, _INK, _WRONG, _RULE = (255, 255, 255), (20, 20, 20), (170, 40, 20), (215, 215, 215)
_RIGHT_MARK = "= "
"""Before a text that is the true one, so that it shows without colour too."""


def text_page(
    pictures: Pixels, rows: Mapping[str, Sequence[str]], *, truth: Sequence[str], caption: str
) -> Image.Image:
    """Pictures beside each other, under each what was said of it.

    Args:
        pictures: (N, C, H, W) uint8, values 0 .. 255.
        rows: who spoke -> N texts; they stand below `truth` in this order.
        truth: N texts, the true ones; a text that equals its own is marked with `=`, others are coloured.
        caption: a line above everything.

    Raises:
        ValueError: a row has another number of texts than there are pictures.
    """
    if any(len(texts) != len(pictures) for texts in (truth, *rows.values())):
        raise ValueError(
            f"{len(pictures)} pictures stand beside rows of {[len(texts) for texts in rows.values()]} texts"
        )
    font = ImageFont.load_default(size=_FONT_SIZE)
    scale = max(1, _SIDE // pictures.shape[2])
    tiles = [sample_grid(pictures[i : i + 1], columns=1, scale=scale) for i in range(len(pictures))]
    lines = {label: [_wrapped(text, font) for text in texts] for label, texts in {"true text": truth, **rows}.items()}
    left = 2 * _MARGIN + round(max(font.getlength(label) for label in lines))
    heights = [max(1, *(len(each) for each in texts)) * _LINE + _MARGIN for texts in lines.values()]
    top = _LINE + tiles[0].height + 3 * _MARGIN
    page = Image.new("RGB", (left + CELL * len(tiles) + _MARGIN, top + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN // 2), caption, fill=_INK, font=font)
    for i, tile in enumerate(tiles):
        page.paste(tile, (left + CELL * i, _LINE + 2 * _MARGIN))
    y = top
    for (label, texts), height in zip(lines.items(), heights, strict=True):
        pen.line([(_MARGIN, y - _MARGIN // 2), (page.width - _MARGIN, y - _MARGIN // 2)], fill=_RULE)
        pen.text((left - _MARGIN - font.getlength(label), y), label, fill=_INK, font=font)
        for i, said in enumerate(texts):
            own = label != "true text"
            right = own and rows[label][i] == truth[i]
            for number, line in enumerate(said):
                shown = f"{_RIGHT_MARK}{line}" if right and number == 0 else line
                ink = _WRONG if own and not right else _INK
                pen.text((left + CELL * i, y + _LINE * number), shown, fill=ink, font=font)
        y += height
    return page


def _wrapped(text: str, font: Font) -> list[str]:
    """Lines of a text that fit into a column, the mark before it too."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(_RIGHT_MARK + longer) <= CELL - _MARGIN:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or ["(nothing)"]
