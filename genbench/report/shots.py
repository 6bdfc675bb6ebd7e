"""Scores against the number of shots, as a picture: a panel for each score, a line for each row of the table."""

from __future__ import annotations

import re

from genbench.core.errors import SettingError
from genbench.report._figure import as_bytes, empty_figure
from genbench.report._table import Leaderboard

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
        grid = figure.subplots(lines, columns, squeeze=False)
        handles: dict[str, object] = {}
        for axes, (family, places) in zip(grid.flat, panels.items(), strict=False):
            shots = sorted(places)
            for row in board.rows:
                cells = [row.cells[places[number]] for number in shots]
                drawn = [(at, cell) for at, cell in enumerate(cells) if cell.number is not None]
                if not drawn:
                    continue
                style = "-" if row.role == "model" else ":"
                colour = f"C{board.rows.index(row)}"
                (line,) = axes.plot(
                    [at for at, _ in drawn],
                    [cell.number for _, cell in drawn if cell.number is not None],
                    marker="o",
                    ms=3,
                    lw=1.2,
                    ls=style,
                    color=colour,
                )
                handles.setdefault(row.label, line)
                for at, cell in drawn:
                    if cell.ci95 is not None:
                        axes.vlines(at, *cell.ci95, color=colour, lw=0.8, alpha=0.7)
            axes.set_xticks(range(len(shots)), [str(number) for number in shots])
            axes.set_title(f"{family} {board.columns[places[shots[0]]].arrow}", fontsize=8.0)
            axes.grid(visible=True, lw=0.4, alpha=0.5)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("shots", fontsize=8.0)
        figure.suptitle(board.title, fontsize=9.0)
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
        return as_bytes(figure, kind, dpi=160)
