"""Leaderboards in a terminal: readable without colour, and at the width that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from genbench.report._table import CellValue, Column, Leaderboard, Legend, Row, letter, letters

_GIVEN_UP_FIRST = (
    "peak_memory_gib",
    "samples_to_quality",
    "train_seconds",
    "samples_seen",
    "network_evaluations",
    "num_parameters",
    "time_to_quality",
    "latency_seconds",
    "real_time_factor",
    "train_images_per_second",
    "sample_images_per_second",
)
"""Costs in the order in which a narrow terminal loses them; scores follow, from the last to the second."""
_BEST = "*"  # bold alone is lost in a pipe
_LABEL_WIDTH = 36
_UNBOUNDED = 10_000
_PIPE_WIDTH = 200


@dataclass(frozen=True)
class _Layout:
    """What is left out to save room."""

    intervals: frozenset[str]
    """Columns that show the interval of each value."""
    paradigm: bool
    hidden: tuple[str, ...]


def results_console() -> Console:
    """Standard output: as wide as the terminal or `COLUMNS`, or wide enough to hide nothing where neither is there."""
    console = Console(highlight=False)
    known = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return console if known else Console(highlight=False, width=_PIPE_WIDTH)


def print_leaderboards(boards: Sequence[Leaderboard], console: Console) -> None:
    """Print every table with its legend and footnotes; `console` should write to stdout."""
    for number, board in enumerate(boards):
        if number:
            console.print()
        _print(board, console)


def _print(board: Leaderboard, console: Console) -> None:
    layout = next(layout for layout in _layouts(board) if _fits(board, layout, console))
    console.print(Text(board.title, style="bold"))
    console.print(_table(board, layout))
    console.print()
    for line in _below(board, layout):
        console.print(line)


def _layouts(board: Leaderboard) -> Iterator[_Layout]:
    """From the widest to the narrowest; the sorted column is never hidden."""
    costs = [name for name in _GIVEN_UP_FIRST if any(column.name == name for column in board.columns)]
    scores = [column.name for column in reversed(board.columns) if column.quality]
    removable = [name for name in (*costs, *scores) if name != board.sort]
    every, sorted_by = frozenset(column.name for column in board.columns), frozenset({board.sort or ""})
    yield _Layout(intervals=every, paradigm=True, hidden=())
    yield _Layout(intervals=sorted_by, paradigm=True, hidden=())
    for number in range(len(removable) + 1):
        yield _Layout(intervals=sorted_by, paradigm=False, hidden=tuple(removable[:number]))
    yield _Layout(intervals=frozenset(), paradigm=False, hidden=tuple(removable))


def _fits(board: Leaderboard, layout: _Layout, console: Console) -> bool:
    if not layout.intervals and {*layout.hidden, board.sort} >= {column.name for column in board.columns}:
        return True  # nothing more can be left out
    options = console.options.update(width=_UNBOUNDED)
    return Measurement.get(console, options, _table(board, layout)).maximum <= console.width


def _table(board: Leaderboard, layout: _Layout) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    tiered = any(row.tier is not None for row in board.rows)
    if tiered:
        table.add_column("tier", justify="right", style="dim")
    table.add_column("model", overflow="fold", max_width=_LABEL_WIDTH)
    if layout.paradigm:
        table.add_column("paradigm", style="dim", no_wrap=True)
    shown = [index for index, column in enumerate(board.columns) if column.name not in layout.hidden]
    for index in shown:
        table.add_column(_header(board.columns[index]), justify="right", no_wrap=True, vertical="bottom")
    for row in board.rows:
        after = row.role == "model" and row is _last_model(board.rows) and row is not board.rows[-1]
        named = [(row.cells[index], board.columns[index].name in layout.intervals) for index in shown]
        cells = [_cell(cell, interval=interval) for cell, interval in named]
        table.add_row(*_lead(row, layout, tiered=tiered), *cells, end_section=after)
    return table


def _last_model(rows: Sequence[Row]) -> Row | None:
    return next((row for row in reversed(rows) if row.role == "model"), None)


def _lead(row: Row, layout: _Layout, *, tiered: bool) -> list[Text]:
    notes = f" ({letters(row.notes)})" if row.notes else ""
    prefix = "control: " if row.role == "control" and not layout.paradigm else ""
    label = Text.assemble((prefix, "dim"), (row.label, "" if row.role == "model" else "italic"), (notes, "dim"))
    tier = [Text("" if row.tier is None else str(row.tier))] if tiered else []
    paradigm = [Text(row.paradigm if row.role == "model" else "control")] if layout.paradigm else []
    return [*tier, label, *paradigm]


def _header(column: Column) -> Text:
    unit = f"({column.unit})" if column.unit and column.unit != column.label else ""
    second = " ".join(part for part in (unit, column.arrow) if part)
    return Text("\n".join([*column.label.split(), *([second] if second else [])]))


def _cell(cell: CellValue, *, interval: bool) -> Text:
    style = {"value": "bold" if cell.bold else "", "missing": "dim", "failed": "red"}[cell.status]
    best = f" {_BEST}" if cell.bold else ""
    around = f" {cell.interval}" if interval and cell.interval and not cell.spread else ""
    notes = f" ({letters(cell.notes)})" if cell.notes else ""
    return Text.assemble((cell.text + best, style), (around, "dim"), (notes, "dim"))


def _below(board: Leaderboard, layout: _Layout) -> Iterator[Text]:
    for finding in board.findings:
        yield Text(f"warning: {finding.message}", style="yellow")
    for reason in board.split:
        yield Text(f"separate table: {reason}")
    signs = "; ".join(_meaning(entry) for entry in board.legend)
    for text in (*board.counts, *board.remarks, *([signs] if signs else [])):
        yield Text(text, style="dim")
    hidden = [column for column in board.columns if column.name in layout.hidden]
    if hidden:
        choice = ",".join(filter(None, [board.sort, *(column.name for column in hidden[:2])]))
        yield Text(
            f"hidden at this width: {', '.join(column.header for column in hidden)}; a wider terminal shows them, "
            f"`genbench leaderboard RUN --columns {choice}` some, `--format md` all",
            style="dim",
        )
    marked = _marked(board, layout)
    for index, note in enumerate(board.footnotes):
        if index in marked:
            yield Text(f"({letter(index)}) {note}", style="dim")


def _marked(board: Leaderboard, layout: _Layout) -> set[int]:
    """Footnotes of rows and of shown columns, and why rows have failed; their letters are those of the whole table."""
    cells = [(cell, column.name) for row in board.rows for cell, column in zip(row.cells, board.columns, strict=True)]
    shown = [cell for cell, name in cells if name not in layout.hidden or cell.status == "failed"]
    return {note for marks in [row.notes for row in board.rows] + [cell.notes for cell in shown] for note in marks}


def _meaning(entry: Legend) -> str:
    return f"{_BEST if entry.sign == 'best' else entry.sign}: {entry.meaning}"
