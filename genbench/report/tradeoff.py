"""A score against a cost, as a picture: every row a point, samplers of one model a line, and who is beaten by nobody.

A row stands on the front when no other is at least as good in both numbers and better in one. Rows whose labels differ
in the settings of `swept` alone are joined, in the order of the cost; where guidance differs, its scale stands beside
each point. Lines are named by what tells them from other lines of the same model: a table has the whole labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genbench.core.errors import SettingError, nearest
from genbench.report._figure import as_bytes, empty_figure, make_logarithmic
from genbench.report._table import Column, Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

SWEPT = ("num_steps", "guidance")
"""Settings whose values make points of one line."""
WIDE = 8.0
"""Ratio of the largest to the smallest number from which an axis is logarithmic."""
_FRONT = "0.6"
_SIZE = (7.0, 4.6)
_LONG_NAME = 32
"""Letters of a line's name from which on all names stand below the axes, which beside them would have no room."""
_LINE_OF_NAMES = 0.18
"""Inches that a name there takes."""


@dataclass(frozen=True)
class Point:
    """One row of a table in the picture."""

    label: str
    x: float
    y: float
    interval: tuple[float, float] | None
    """95 % interval of y."""


def points(board: Leaderboard, *, x: str, y: str) -> list[Point]:
    """Rows of models that have both numbers, in the order of the table.

    Raises:
        SettingError: the table has no such column.
    """
    columns = (_index(board, x), _index(board, y))
    found = []
    for row in board.rows:
        cost, score = (row.cells[index] for index in columns)
        if row.role == "model" and cost.number is not None and score.number is not None:
            found.append(Point(row.label, cost.number, score.number, score.ci95))
    return found


def left_out(board: Leaderboard, *, x: str, y: str) -> dict[str, str]:
    """Labels of the models that `points` lacks, and which number each does not have.

    Raises:
        SettingError: as `points`.
    """
    columns = (_index(board, x), _index(board, y))
    rows = [row for row in board.rows if row.role == "model"]
    missed = {row.label: [board.columns[i].header for i in columns if row.cells[i].number is None] for row in rows}
    return {label: f"no {' and no '.join(headers)}" for label, headers in missed.items() if headers}


def front(found: Sequence[Point], *, lower_x: bool, lower_y: bool) -> list[Point]:
    """Points that no other beats, from the smallest x on."""
    sign_x, sign_y = (1.0 if lower else -1.0 for lower in (lower_x, lower_y))
    kept = []
    for point in found:
        own = (sign_x * point.x, sign_y * point.y)
        others = [(sign_x * other.x, sign_y * other.y) for other in found]
        if not any(a <= own[0] and b <= own[1] and (a, b) != own for a, b in others):
            kept.append(point)
    return sorted(kept, key=lambda point: point.x)


def series(found: Sequence[Point], *, swept: Sequence[str] = SWEPT) -> dict[str, list[Point]]:
    """Points by their labels without the swept settings, each in the order of x."""
    lines: dict[str, list[Point]] = {}
    for point in found:
        lines.setdefault(without(point.label, swept), []).append(point)
    return {label: sorted(line, key=lambda point: point.x) for label, line in lines.items()}


def without(label: str, settings: Sequence[str]) -> str:
    """A label such as `ddpm[sampler=ddim,num_steps=25]` without some of its settings."""
    name, parts = _parts(label)
    return _label(name, [part for part in parts if part.partition("=")[0] not in settings])


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Labels without the settings that all labels of the same model share.

    Example:
        >>> short_names(["ddpm[lr=1,eta=0]", "ddpm[lr=1,eta=1]", "vae[lr=1]"]).values()
        dict_values(['ddpm[eta=0]', 'ddpm[eta=1]', 'vae'])
    """
    taken = {label: _parts(label) for label in labels}
    shared: dict[str, set[str]] = {}
    for name, parts in taken.values():
        shared[name] = shared.get(name, set(parts)) & set(parts)
    return {
        label: _label(name, [part for part in parts if part not in shared[name]])
        for label, (name, parts) in taken.items()
    }


def _parts(label: str) -> tuple[str, list[str]]:
    match = re.fullmatch(r"([^\[]+)\[(.*)\]", label)
    return (label, []) if match is None else (match[1], match[2].split(","))


def _label(name: str, parts: Sequence[str]) -> str:
    return f"{name}[{','.join(parts)}]" if parts else name


def _scale(point: Point) -> str | None:
    """Scale of guidance, where a label gives it."""
    return next((part.partition("=")[2] for part in _parts(point.label)[1] if part.startswith("guidance=")), None)


def picture(board: Leaderboard, *, x: str, y: str, kind: str) -> bytes:
    """The table's rows as an image file.

    Args:
        board: one table.
        x: name of the column across, as a rule a cost.
        y: name of the column upwards, as a rule a score.
        kind: `svg`, `png` or `pdf`.

    Raises:
        SettingError: the table has no such column, or no row has both numbers.
    """
    found = points(board, x=x, y=y)
    if not found:
        raise SettingError(f"no model of {board.title} has both `{x}` and `{y}`")
    across, upwards = board.columns[_index(board, x)], board.columns[_index(board, y)]
    lines = series(found)
    names = short_names(list(lines))
    below = max(map(len, names.values())) > _LONG_NAME
    width, height = _SIZE
    with empty_figure(width, height + below * _LINE_OF_NAMES * len(lines), font_size=9.0) as figure:
        axes = figure.add_subplot()
        _draw(axes, {names[label]: line for label, line in lines.items()}, across, upwards)
        axes.set_title(board.title, fontsize=9.0)
        figure.legend(loc="outside lower left" if below else "outside right upper", frameon=False, fontsize=8.0)
        return as_bytes(figure, kind, dpi=160)


def _draw(axes: Axes, lines: Mapping[str, Sequence[Point]], across: Column, upwards: Column) -> None:
    found = [point for line in lines.values() for point in line]
    best = front(found, lower_x=across.better != "higher", lower_y=upwards.better != "higher")
    (drawn,) = axes.plot([p.x for p in best], [p.y for p in best], color=_FRONT, lw=5, marker="o", ms=9, zorder=0)
    drawn.set(alpha=0.4, label="beaten by none")
    for label, line in lines.items():
        scales = [_scale(point) for point in line]
        several = len(set(scales)) > 1
        name = f"{label}, points: guidance" if several else label
        (drawn,) = axes.plot([p.x for p in line], [p.y for p in line], marker="o", ms=4, lw=1.2, label=name)
        for point, scale in zip(line, scales, strict=True):
            if point.interval is not None:
                axes.vlines(point.x, *point.interval, color=drawn.get_color(), lw=0.8, alpha=0.7)
            if several and scale is not None:
                _write_beside(axes, point, f"{float(scale):g}", drawn.get_color())
    across_and_up: tuple[tuple[list[float], Literal["x", "y"]], ...] = (
        ([point.x for point in found], "x"),
        ([point.y for point in found], "y"),
    )
    for values, which in across_and_up:
        if min(values) > 0.0 and max(values) / min(values) >= WIDE:
            make_logarithmic(axes, which)
    axes.set_xlabel(across.header)
    axes.set_ylabel(f"{upwards.header} (95 % intervals)")
    axes.grid(visible=True, which="major", lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _write_beside(axes: Axes, point: Point, text: str, colour: ColorType) -> None:
    place = (point.x, point.y)
    axes.annotate(text, place, xytext=(4.0, 2.0), textcoords="offset points", fontsize=7.0, color=colour)


def _index(board: Leaderboard, name: str) -> int:
    names = [column.name for column in board.columns]
    if name not in names:
        raise SettingError(f"{board.title} has no column `{name}`", hint=nearest(name, names))
    return names.index(name)
