"""Samples in the plane and learned densities side by side, a pair of panels for each model; chains over energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
ENERGY_LINES = 5
"""Contours of an energy, a nat apart."""
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


def chains_page(chains: Mapping[str, Array], density: Array, *, half: float, title: str) -> bytes:
    """A PNG with one panel for each set of chains, over contours of the energy that they follow.

    Contours stand at energies 1, 2, 3, ... nats above the lowest: a closed line without points inside is a mode that
    the chains have missed.

    Args:
        chains: where they stand, (N, 2), by what is written above the panel, such as where they started.
        density: of the model on [-half, half]^2, as that of a `Plane`; the energy is less its logarithm.
        half: half a side of the frame.
        title: above everything.

    Raises:
        ValueError: no chains, points that are not pairs of numbers, or a density that is no square.
    """
    if not chains:
        raise ValueError("a page of chains needs at least one set")
    for name, points in chains.items():
        _check(Plane(name, points, density, ""))
    count = min([POINTS, *(len(points) for points in chains.values())])
    energy = -np.log(np.maximum(density, np.finfo(np.float64).tiny))
    levels = float(energy.min()) + np.arange(1.0, ENERGY_LINES + 1.0)
    ticks = (np.arange(len(density)) + 0.5) * (2.0 * half / len(density)) - half
    with empty_figure(2.0 * _SIDE * len(chains), 2.0 * _SIDE + 0.5, font_size=7.0) as figure:
        figure.suptitle(title, fontsize=8.0)
        for axes, (name, points) in zip(figure.subplots(1, len(chains), squeeze=False)[0], chains.items(), strict=True):
            axes.contour(ticks, ticks, energy, levels=levels, cmap=_MAP, linewidths=0.5)
            _draw_points(axes, Plane(name, points, density, ""), half, count, size=4.0)
        return as_bytes(figure, "png", dpi=150)


def _draw_points(axes: Axes, plane: Plane, half: float, count: int, *, size: float = 0.6) -> None:
    shown = plane.points[:count]
    axes.scatter(shown[:, 0], shown[:, 1], s=size, color=_INK, alpha=0.5, linewidths=0, rasterized=True)
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
