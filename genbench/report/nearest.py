"""A page of samples, each beside the training pictures that are nearest to it: copies show at a glance."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from genbench.report.grid import Font, Pixels, sample_grid

_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_FONT_SIZE, _LINE = 13, 17
_MARGIN = 10
_ROW_GAP = 6
_LABEL_WIDTH = 240
"""Longer labels lose their beginning: paths differ at the end."""
LARGEST = 128
"""Height on the page, in pixels, of pictures that are larger."""
_HEADS = ("sample", "nearest training examples, nearest first")


def neighbour_page(samples: Pixels, references: Pixels, labels: Sequence[Sequence[str]]) -> Image.Image:
    """One line for each sample: what is said of it, the sample, and its neighbours.

    Args:
        samples: (n, 3, H, W) uint8, values 0 .. 255, n at least 1.
        references: (n, k, 3, H, W) uint8, the neighbours of each sample in order.
        labels: lines of text for each sample; those of further ones are not shown.

    Raises:
        ValueError: no samples, or another number of neighbours or labels.
    """
    if not len(samples) or len(references) != len(samples) or len(labels) < len(samples):
        raise ValueError(
            f"expected as many lists of neighbours and labels as samples, at least 1, "
            f"found {len(samples)} samples, {len(references)} and {len(labels)}"
        )
    font = ImageFont.load_default(size=_FONT_SIZE)
    texts = [[_shortened(line, font) for line in label] for label in labels[: len(samples)]]
    drawn = [_strip(sample[None]) for sample in samples]
    real = [_strip(neighbours) for neighbours in references]
    left = 2 * _MARGIN + round(max(font.getlength(line) for text in texts for line in text))
    middle = left + max(drawn[0].width, round(font.getlength(_HEADS[0]))) + 2 * _MARGIN
    width = middle + max(real[0].width, round(font.getlength(_HEADS[1]))) + _MARGIN
    height = max(drawn[0].height, _LINE * max(map(len, texts))) + _ROW_GAP
    page = Image.new("RGB", (width, 2 * _MARGIN + _LINE + height * len(drawn)), _PAPER)
    pen = ImageDraw.Draw(page)
    for x, head in zip((left, middle), _HEADS, strict=True):
        pen.text((x, _MARGIN), head, fill=_INK, font=font)
    for place, (text, sample, neighbours) in enumerate(zip(texts, drawn, real, strict=True)):
        y = _MARGIN + _LINE + _ROW_GAP + place * height
        pen.multiline_text((_MARGIN, y), "\n".join(text), fill=_INK, font=font)
        page.paste(sample, (left, y))
        page.paste(neighbours, (middle, y))
    return page


def png_bytes(page: Image.Image) -> bytes:
    """The page as a PNG file."""
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _strip(images: Pixels) -> Image.Image:
    """Pictures side by side, small ones enlarged and large ones shrunk."""
    strip = sample_grid(images, columns=len(images))
    side = images.shape[2]
    if side <= LARGEST:
        return strip
    size = (round(strip.width * LARGEST / side), LARGEST)
    return strip.resize(size, Image.Resampling.BOX)


def _shortened(label: str, font: Font) -> str:
    shown = " ".join(label.split())
    if font.getlength(shown) <= _LABEL_WIDTH:
        return shown
    while shown and font.getlength("..." + shown) > _LABEL_WIDTH:
        shown = shown[1:]
    return "..." + shown
