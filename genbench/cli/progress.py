"""What a person sees while a run goes: a live line on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genbench.cli.wording import counted
from genbench.core.record import Record
from genbench.core.spec import Cell
from genbench.plan import Plan
from genbench.runner import Observer


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
    """One plain line when a cell ends."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._ended, self._total = 0, 0
        self._began: dict[str, float] = {}

    def begin(self, cells: Sequence[Cell], resumed: int) -> None:
        """Say how much there is to do."""
        self._ended, self._total = resumed, len(cells)
        done = f", {resumed} of them finished before" if resumed else ""
        self._say(f"{self._title}: {counted(len(cells), 'cell')}{done}")

    def cell_begins(self, cell: Cell) -> None:
        """Remember when."""
        self._began[cell.key] = time.monotonic()

    def cell_reports(self, cell: Cell, message: Mapping[str, object]) -> None:
        """Plain logs keep only the ends."""

    def cell_ends(self, cell: Cell, record: Record) -> None:
        """Say how the cell ended."""
        self._ended += 1
        seconds = time.monotonic() - self._began[cell.key]
        self._say(f"  [{self._ended}/{self._total}] {cell.label} seed {cell.seed}: {outcome(record)} ({seconds:.1f} s)")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class Live(Lines):
    """A bar over all cells and one for each cell in flight: phase, loss, images/s, time left."""

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
        """Start a bar for the cell."""
        super().cell_begins(cell)
        name = escape(f"{cell.label} seed {cell.seed}")
        self._tasks[cell.key] = self._progress.add_task(name, total=None, detail="starting")

    def cell_reports(self, cell: Cell, message: Mapping[str, object]) -> None:
        """Show the phase, and in training the loss and the speed."""
        task = self._tasks[cell.key]
        if "seen" not in message:
            self._progress.update(task, total=None, detail=str(message["phase"]))
            return
        detail = f"{message['stage']}: loss {message['loss']:.4g}, {message['rate']:.0f} img/s"
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


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
