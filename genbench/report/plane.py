"""Samples in the plane and learned densities side by side, a pair of panels for each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from genbench.report._figure import as_bytes, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.floating]

PAIRS = 4
"""Models in one line."""
POINTS = 4096
"""Drawn of each model, at most, and no more than the least of them has: a denser cloud would look like more mass."""
_SIDE = 1.5
_MAP = "viridis"
_INK = "#1d3557"


@dataclass(frozen=True)
class Plane:
    """What is shown of one model, or of the law itself."""

    name: str
    points: Array
    """(N, 2)."""
    density: Array | None
    """(R, R), rows from the lowest y up, per unit of area; None where it is not known."""
    remark: str
    """Below the density, or in its place."""


def plane_page(planes: Sequence[Plane], *, half: float, title: str, pairs: int = PAIRS) -> bytes:
    """A PNG of pairs of panels in reading order: points on the left, density on the right.

    All panels show [-half, half]^2, and all densities have one scale of colour, from 0 to the largest value of the
    first density, above which colours no longer change: the first plane is best the law itself.

    Args:
        planes: in the order in which they are drawn.
        half: half a side of the frame.
        title: above everything.
        pairs: models in one line.

    Raises:
        ValueError: no planes, points that are not pairs of numbers, or a density that is no square.
    """
    if not planes:
        raise ValueError("a page of planes needs at least one")
    for plane in planes:
        _check(plane)
    count = min(POINTS, *(len(plane.points) for plane in planes))
    highest = next((float(plane.density.max()) for plane in planes if plane.density is not None), 1.0)
    columns = min(pairs, len(planes))
    lines = -(-len(planes) // columns)
    with empty_figure(2.2 * _SIDE * columns, (_SIDE + 0.35) * lines + 0.4, font_size=7.0) as figure:
        axes = figure.subplots(lines, 2 * columns, squeeze=False)
        figure.suptitle(title, fontsize=8.0)
        for place, plane in enumerate(planes):
            line, column = divmod(place, columns)
            _draw_points(axes[line, 2 * column], plane, half, count)
            _draw_density(axes[line, 2 * column + 1], plane, half, highest)
        for place in range(2 * len(planes), 2 * columns * lines):
            axes[place // (2 * columns), place % (2 * columns)].set_axis_off()
        return as_bytes(figure, "png", dpi=150)


def _draw_points(axes: Axes, plane: Plane, half: float, count: int) -> None:
    shown = plane.points[:count]
    axes.scatter(shown[:, 0], shown[:, 1], s=0.6, color=_INK, alpha=0.5, linewidths=0, rasterized=True)
    _frame(axes, half)
    axes.set_title(plane.name, fontsize=7.0, loc="left")


def _draw_density(axes: Axes, plane: Plane, half: float, highest: float) -> None:
    if plane.density is not None:
        extent = (-half, half, -half, half)
        axes.imshow(plane.density, origin="lower", extent=extent, cmap=_MAP, vmin=0.0, vmax=highest)
        axes.set_xlabel(plane.remark, fontsize=6.0, labelpad=2.0)
    else:
        axes.text(0.5, 0.5, plane.remark, ha="center", va="center", transform=axes.transAxes, color="0.4", wrap=True)
    _frame(axes, half)


def _frame(axes: Axes, half: float) -> None:
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _check(plane: Plane) -> None:
    if plane.points.ndim != 2 or plane.points.shape[1] != 2:
        raise ValueError(f"`{plane.name}`: expected points (N, 2), found {plane.points.shape}")
    if plane.density is not None and (plane.density.ndim != 2 or len(set(plane.density.shape)) != 1):
        raise ValueError(f"`{plane.name}`: expected a square of densities, found {plane.density.shape}")
