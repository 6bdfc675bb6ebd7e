"""Sounds of all models of a run as one page that a browser shows and plays: spectrograms above players.

The page is one file: pictures and WAV files lie inside it, and nothing is fetched from elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from genbench.report.sounds import COLUMNS, WINDOW, spectrograms, wav

_STYLE = (
    "body{font-family:sans-serif;margin:1em;color:#141414;background:#fff}h1{font-size:1.2em}h2{font-size:1em}"
    "section>div{display:flex;flex-wrap:wrap;gap:8px}figure{margin:0}img{display:block;border:1px solid #ccc;"
    "image-rendering:pixelated}audio{display:block;width:194px;height:32px}"
)


@dataclass(frozen=True)
class Sounds:
    """Waveforms of one model."""

    codes: npt.NDArray[np.uint8]
    """(N, T), mu-law codes with values 0 .. levels-1."""
    levels: int
    sample_rate: int


def sounds_page(rows: Mapping[str, Sounds], *, title: str, columns: int, remarks: Sequence[str] = ()) -> str:
    """HTML with a section for each model, in the order of the mapping.

    Args:
        rows: name -> waveforms.
        title: above everything.
        columns: waveforms of each model, the first ones.
        remarks: what else a reader must know, a paragraph each.

    Raises:
        ValueError: no rows, no columns, or what is no waveform.
    """
    if not rows or columns < 1:
        raise ValueError(f"a page of sounds needs at least one model and one column, found {len(rows)} and {columns}")
    sections = "".join(_section(name, sounds, columns) for name, sounds in rows.items())
    seconds = ", ".join(sorted({f"{sounds.codes.shape[1] / sounds.sample_rate:.3g}" for sounds in rows.values()}))
    rates = ", ".join(sorted({f"{sounds.sample_rate}" for sounds in rows.values()}))
    legend = (
        f"Time runs to the right over {seconds} s; frequency runs upwards from 0 to half of {rates} Hz; "
        "dark is loud. Sound k of every model stands in column k."
    )
    paragraphs = "".join(f"<p>{html.escape(text)}</p>\n" for text in (legend, *remarks))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{html.escape(title)}</h1>\n{paragraphs}{sections}</html>\n"
    )


def _section(name: str, sounds: Sounds, columns: int) -> str:
    shown = sounds.codes[:columns]
    pictures = spectrograms(shown, levels=sounds.levels)
    size = f'width="{2 * COLUMNS}" height="{WINDOW // 2}"'
    figures = "".join(
        f'<figure><img {size} alt="spectrogram {number}" src="{_png(picture[0])}">'
        f'<audio controls preload="none" src="{_wav(code, sounds)}"></audio></figure>\n'
        for number, (picture, code) in enumerate(zip(pictures, shown, strict=True))
    )
    return f"<section>\n<h2>{html.escape(name)}</h2>\n<div>\n{figures}</div>\n</section>\n"


def _png(picture: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return _inside("image/png", buffer.getvalue())


def _wav(code: npt.NDArray[np.uint8], sounds: Sounds) -> str:
    return _inside("audio/wav", wav(code, levels=sounds.levels, sample_rate=sounds.sample_rate))


def _inside(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
