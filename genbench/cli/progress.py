"""What a person sees while a run goes: a live line on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genbench.cli.wording import counted, lasted
from genbench.core.record import Record
from genbench.core.spec import Cell
from genbench.core.units import kind_on, rate_unit
from genbench.plan import Plan
from genbench.runner import Observer

FIRST_STANDING = 60.0
"""Seconds after which plain lines first say where a cell stands; each time after that the wait is twice as long."""


@contextlib.contextmanager
def observer(console: Console, plan: Plan, folder: Path) -> Iterator[Observer]:
    """The observer that fits the console."""
    suite = plan.suite
    title = f"{suite.name} v{suite.version}, tier {plan.tier}, {plan.protocol.dataset.label} -> {folder}"
    if not console.is_terminal:
        yield Lines(console, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Live(console, title, progress)


class Lines:
    """A plain line when a cell begins and when it ends; between them, where it stands after 1, 2, 4, 8, ... minutes.

    So a log tells what runs, and grows no longer than the logarithm of the time.

    Args:
        console: where lines go.
        title: of the run.
        clock: seconds of any origin.
    """

    def __init__(self, console: Console, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._title, self._clock = console, title, clock
        self._begun, self._total = 0, 0
        self._names: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def begin(self, cells: Sequence[Cell], resumed: int) -> None:
        """Say how much there is to do."""
        self._begun, self._total = resumed, len(cells)
        done = f", {resumed} of them finished before" if resumed else ""
        self._say(f"{self._title}: {counted(len(cells), 'cell')}{done}")

    def cell_begins(self, cell: Cell) -> None:
        """Say so."""
        self._started(cell)
        self._say(f"  {self._names[cell.key]}: begins")

    def cell_reports(self, cell: Cell, message: Mapping[str, object]) -> None:
        """Say where a cell stands, ever more rarely."""
        seconds = self._clock() - self._since[cell.key]
        if seconds < self._due[cell.key]:
            return
        while self._due[cell.key] <= seconds:
            self._due[cell.key] *= 2.0
        self._say(f"  {self._names[cell.key]}: {_standing(cell, message)}, {lasted(seconds)} so far")

    def cell_ends(self, cell: Cell, record: Record) -> None:
        """Say how the cell ended."""
        seconds = self._clock() - self._since[cell.key]
        self._say(f"  {self._names[cell.key]}: {outcome(record)} ({lasted(seconds)})")

    def _started(self, cell: Cell) -> None:
        """Give a cell its number, and remember when."""
        self._begun += 1
        self._names[cell.key] = f"[{self._begun}/{self._total}] {cell.label} seed {cell.seed}"
        self._since[cell.key], self._due[cell.key] = self._clock(), FIRST_STANDING

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class Live(Lines):
    """A bar over all cells and one for each cell in flight: phase, loss, speed, time left."""

    def __init__(self, console: Console, title: str, progress: Progress) -> None:
        super().__init__(console, title)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None

    def begin(self, cells: Sequence[Cell], resumed: int) -> None:
        """Start the bar over all cells."""
        super().begin(cells, resumed)
        self._all = self._progress.add_task("all cells", total=len(cells), completed=resumed, detail="")

    def cell_begins(self, cell: Cell) -> None:
        """Start a bar for the cell, which says more than a line."""
        self._started(cell)
        name = escape(f"{cell.label} seed {cell.seed}")
        self._tasks[cell.key] = self._progress.add_task(name, total=None, detail="starting")

    def cell_reports(self, cell: Cell, message: Mapping[str, object]) -> None:
        """Show the phase, and in training the loss and the speed."""
        task = self._tasks[cell.key]
        if "seen" not in message:
            self._progress.update(task, total=None, detail=str(message["phase"]))
            return
        detail = f"{message['stage']}: loss {message['loss']:.4g}, {message['rate']:.0f} {_unit(cell)}"
        self._progress.update(task, total=_number(message["total"]), completed=_number(message["seen"]), detail=detail)

    def cell_ends(self, cell: Cell, record: Record) -> None:
        """Leave one line and drop the bar."""
        super().cell_ends(cell, record)
        self._progress.remove_task(self._tasks.pop(cell.key))
        if self._all is not None:
            self._progress.advance(self._all)


def outcome(record: Record) -> str:
    """One phrase on how a cell ended: its first scores, or its failure."""
    if record.error is not None:
        return f"failed in {record.error.phase}: {record.error.type}: {record.error.message.splitlines()[0]}"
    marks = {"bound": "<= ", "dequantised": "<= ", "estimate": "~ ", "exact": ""}
    shown = [f"{score.name} {marks[score.kind]}{score.value:.3g}" for score in record.scores[:4]]
    return ", ".join(shown) or "no metric applies"


def _standing(cell: Cell, message: Mapping[str, object]) -> str:
    """The phase, and in training how far it is."""
    if "seen" not in message:
        return str(message["phase"])
    return (
        f"{message['phase']}: {message['stage']}, {_number(message['seen']):,.0f} of {_number(message['total']):,.0f} "
        f"examples, loss {message['loss']:.4g}, {message['rate']:,.0f} {_unit(cell)}"
    )


def _unit(cell: Cell) -> str:
    return rate_unit(kind_on(cell.dataset.label))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
