"""Scores against the number of shots, as a picture: a panel for each score, a line for each row of the table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from genbench.core.errors import SettingError
from genbench.report._figure import as_bytes, empty_figure
from genbench.report._table import Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_NAME = re.compile(r"(?P<family>.+)_(?P<shots>\d+)shot")
_PANEL = (3.1, 2.5)
_COLUMNS = 4


def families(board: Leaderboard) -> dict[str, dict[int, int]]:
    """Scores that were taken after several numbers of shots: their name -> shots -> index of the column."""
    found: dict[str, dict[int, int]] = {}
    for index, column in enumerate(board.columns):
        match = _NAME.fullmatch(column.name)
        if match is not None:
            found.setdefault(match["family"], {})[int(match["shots"])] = index
    return found


def shots_picture(board: Leaderboard, *, kind: str) -> bytes:
    """All such scores of one table as an image file, with their 95 % intervals.

    Args:
        board: one table.
        kind: `svg`, `png` or `pdf`.

    Raises:
        SettingError: the table has no score by the number of shots.
    """
    panels = families(board)
    if not panels:
        raise SettingError(f"{board.title} has no score by shots", hint="`genbench run --suite captioning` makes some")
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    with empty_figure(_PANEL[0] * columns, _PANEL[1] * lines + 0.4, font_size=8.0) as figure:
        every = list(figure.subplots(lines, columns, squeeze=False).flat)
        handles: dict[str, Line2D] = {}
        for axes, (family, places) in zip(every, panels.items(), strict=False):
            handles = {**_draw(axes, board, places), **handles}
            axes.set_title(f"{family} {board.columns[min(places.values())].arrow}", fontsize=8.0)
        for axes in every[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("shots", fontsize=8.0)
        figure.suptitle(board.title, fontsize=9.0)
        named = [row.label for row in board.rows if row.label in handles]
        figure.legend([handles[label] for label in named], named, loc="outside right upper", frameon=False)
        return as_bytes(figure, kind, dpi=160)


def _draw(axes: Axes, board: Leaderboard, places: Mapping[int, int]) -> dict[str, Line2D]:
    """Lines of all rows that have the score, controls dotted, by their labels."""
    shots, handles = sorted(places), {}
    for number, row in enumerate(board.rows):
        cells = [row.cells[places[each]] for each in shots]
        drawn = [(at, cell.number, cell.ci95) for at, cell in enumerate(cells) if cell.number is not None]
        style, colour = "-" if row.role == "model" else ":", f"C{number}"
        if drawn:
            x, y = [at for at, _, _ in drawn], [value for _, value, _ in drawn]
            (handles[row.label],) = axes.plot(x, y, marker="o", ms=3, lw=1.2, ls=style, color=colour)
        for at, _, ci95 in drawn:
            if ci95 is not None:
                axes.vlines(at, *ci95, color=colour, lw=0.8, alpha=0.7)
    axes.set_xticks(range(len(shots)), [str(each) for each in shots])
    axes.grid(visible=True, lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return handles
