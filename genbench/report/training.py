"""How trainings went, as a picture: the loss of each row against the examples seen, and the score at each look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from genbench.core.record import TimeToQuality
from genbench.report._figure import as_bytes, empty_figure, make_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.floating]

COLUMNS = 3
WIDE = 20.0
"""Ratio of the largest to the smallest positive number from which an axis is logarithmic."""
_WIDTH, _HEIGHT = 3.3, 2.3
_LOSS, _SCORE = "#8d99ae", "#d1495b"


@dataclass(frozen=True)
class Curve:
    """One training."""

    label: str
    samples_seen: Array
    """(B,) rising: examples at the end of each block of steps, over all phases."""
    loss: Array
    """(B,): the last loss of each block."""
    quality: TimeToQuality | None
    """The looks, where the tier had a target."""


def training_page(curves: Sequence[Curve], *, title: str, kind: str) -> bytes:
    """A panel for each training, in reading order. Losses of different models are not comparable: each has its axis.

    Args:
        curves: in the order in which they are drawn.
        title: above everything.
        kind: `svg`, `png` or `pdf`.

    Raises:
        ValueError: no curves, or one without a block.
    """
    if not curves or any(not len(curve.loss) for curve in curves):
        raise ValueError("a page of trainings needs at least one, each with a block of steps")
    columns = min(COLUMNS, len(curves))
    lines = -(-len(curves) // columns)
    with empty_figure(_WIDTH * columns, _HEIGHT * lines + 0.4, font_size=7.0) as figure:
        axes = figure.subplots(lines, columns, squeeze=False)
        figure.suptitle(title, fontsize=8.0)
        for place, panel in enumerate(axes.flat):
            if place < len(curves):
                _draw(panel, curves[place])
            else:
                panel.set_axis_off()
        return as_bytes(figure, kind, dpi=150)


def _draw(panel: Axes, curve: Curve) -> None:
    panel.plot(curve.samples_seen, curve.loss, color=_LOSS, lw=0.9)
    _scaled(panel, curve.loss)
    panel.set_title(curve.label, fontsize=7.0, loc="left")
    panel.set_xlabel("training examples seen")
    panel.set_ylabel("loss", color=_LOSS)
    panel.xaxis.set_major_formatter(_counted)
    panel.spines[["top"]].set_visible(False)
    if curve.quality is not None:
        _draw_looks(panel.twinx(), curve.quality)
    else:
        panel.spines[["right"]].set_visible(False)


def _draw_looks(panel: Axes, quality: TimeToQuality) -> None:
    looks = [(look.samples_seen, look.value) for look in quality.looks if look.value is not None]
    values = np.array([value for _, value in looks])
    panel.plot([seen for seen, _ in looks], values, color=_SCORE, marker="o", ms=2.5, lw=0.9)
    panel.axhline(quality.target, color=_SCORE, lw=0.7, ls=":")
    _scaled(panel, np.append(values, quality.target))
    panel.set_ylabel(f"{quality.score} (dotted: target)", color=_SCORE)
    panel.spines[["top"]].set_visible(False)


def _counted(count: float, _place: float) -> str:
    """Such as 40k."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{sign}"
    return f"{count:g}"


def _scaled(panel: Axes, values: Array) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0.0 and finite.max() / finite.min() >= WIDE:
        make_logarithmic(panel, "y")
