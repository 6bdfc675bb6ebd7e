"""Verdicts in a terminal: worst first, readable without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from genbench.core.verdict import GateReport, Outcome, Verdict
from genbench.report import _changes as words

_STYLES: dict[Outcome, str] = {
    "regressed": "bold red",
    "failed": "bold red",
    "vanished": "bold red",
    "not_comparable": "yellow",
    "inconclusive": "yellow",
    "improved": "green",
    "fixed": "green",
    "new": "cyan",
    "still_failing": "dim",
    "unchanged": "dim",
}


_NUMBERS = ("base", "head", "change", "95 % interval", "tolerance")
_GIVEN_UP_FIRST = ("tolerance", "base", "head", "95 % interval")
"""Columns in the order in which a narrow terminal loses them; the outputs for machines have them all."""
_UNBOUNDED = 10_000


def print_verdicts(report: GateReport, console: Console) -> None:
    """Print the table, what is to be said of its rows, and the conclusion; `console` should write to stdout.

    Counters that did not change are counted, not listed: a row has ten of them. Of the rest that did not change the
    table says enough.
    """
    console.print(Text(report.title, style="bold"))
    listed = [one for one in words.worst_first(report) if not (one.gate == "counters" and one.outcome == "unchanged")]
    if listed:
        console.print(next(table for table in _tables(listed) if _fits(table, console)))
    console.print()
    for note, measures in _notes(listed).items():
        where = "; ".join(f"{row}: {', '.join(names)}" for row, names in measures.items())
        console.print(Text(f"{where}: {note}"))
    for notice in report.notices:
        console.print(Text(notice))
    console.print(Text(f"{words.conclusion(report)} (exit code {report.exit_code}): {words.tally(report)}"))


def _notes(verdicts: Sequence[Verdict]) -> dict[str, dict[str, list[str]]]:
    """What is to be said, once each, with the rows and their measures that it is said of."""
    told: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts:
        if verdict.note and verdict.outcome != "unchanged":
            names = told.setdefault(verdict.note, {}).setdefault(verdict.row, [])
            names += [verdict.measure] if verdict.measure not in names else []
    return told


def _tables(verdicts: Sequence[Verdict]) -> Iterator[Table]:
    """From the widest to the narrowest."""
    for number in range(len(_GIVEN_UP_FIRST) + 1):
        yield _table(verdicts, [name for name in _NUMBERS if name not in _GIVEN_UP_FIRST[:number]])


def _fits(table: Table, console: Console) -> bool:
    if len(table.columns) <= 5:
        return True  # nothing more can be left out
    options = console.options.update(width=_UNBOUNDED)
    return Measurement.get(console, options, table).maximum <= console.width


def _table(verdicts: Sequence[Verdict], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("row", overflow="fold", max_width=36)
    table.add_column("measure", overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    several = len({verdict.dataset for verdict in verdicts}) > 1
    for verdict in verdicts:
        table.add_row(*_row(verdict, numbers, several=several))
    return table


def _row(verdict: Verdict, numbers: Sequence[str], *, several: bool) -> list[Text]:
    style = _STYLES[verdict.outcome]
    told = Text(words.WORDS[verdict.outcome], style=style)
    if words.basis(verdict):
        told.append(f"; {words.basis(verdict)}", style="dim")
    cells = {
        "base": Text(words.value(verdict, verdict.base)),
        "head": Text(words.value(verdict, verdict.head)),
        "change": Text(words.change(verdict), style=style),
        "95 % interval": Text(words.interval(verdict)),
        "tolerance": Text(words.tolerance(verdict)),
    }
    label = words.subject(verdict) if several else verdict.row
    return [
        Text(words.MARKS[verdict.outcome], style=style),
        Text(label),
        Text(words.measure(verdict)),
        *(cells[name] for name in numbers),
        told,
    ]
