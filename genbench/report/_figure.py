"""Figures as bytes: the same in every run, and matplotlib loaded only where one is drawn."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}


@contextlib.contextmanager
def empty_figure(width: float, height: float, *, font_size: float) -> Iterator[Figure]:
    """A figure without axes, in inches; its fonts and its names of parts hold until the context is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a font cache, on the first use on a machine
        import matplotlib as mpl
        from matplotlib.figure import Figure
    with mpl.rc_context({"svg.hashsalt": "genbench", "font.size": font_size}):
        yield Figure(figsize=(width, height), layout="constrained")


def make_logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis whose ticks stand at 1, 2 and 5 times powers of ten and are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def as_bytes(figure: Figure, kind: str, *, dpi: int) -> bytes:
    """An image file without the time at which it was made; `kind` is `svg`, `png` or `pdf`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=_UNDATED.get(kind, {}))
    return buffer.getvalue()
