"""Cells to records: order, resume, isolation of failures, progress."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from genbench.core.record import Failure, Record
from genbench.core.spec import Cell
from genbench.executors.job import Job, Outcome
from genbench.executors.local import LocalExecutor, log_tail
from genbench.report.grid import sample_grid, save_png
from genbench.report.sounds import save_sounds, spectrograms
from genbench.store import RunFolder, merged, utc_now

CONTROLS_AT_ONCE = 2
"""Controls are not timed, so two of them may share the machine."""
GRID_SAMPLES = 64
_TRAINED = "its training is finished and kept: the same command goes on from there; the log says what came after it"


class _Tell(Protocol):
    def __call__(self, message: Mapping[str, object], /) -> None: ...


class Observer(Protocol):
    """Who is told how a run goes; called from one thread at a time."""

    def begin(self, cells: Sequence[Cell], resumed: int) -> None:
        """All cells of the run, and how many of them were finished before."""

    def cell_begins(self, cell: Cell) -> None:
        """A cell starts."""

    def cell_reports(self, cell: Cell, message: Mapping[str, object]) -> None:
        """A cell is in a phase, or somewhere in its training."""

    def cell_ends(self, cell: Cell, record: Record) -> None:
        """A cell has its record."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a run ended."""

    records: tuple[Record, ...]
    resumed: int

    @property
    def failed(self) -> tuple[Record, ...]:
        """Records without scores."""
        return tuple(record for record in self.records if record.status == "failed")


def run(
    cells: Sequence[Cell], folder: RunFolder, *, version: str, observer: Observer, fail_fast: bool = False
) -> Summary:
    """Run every cell that has no finished record yet; failed ones are tried again.

    Args:
        cells: in the order in which they run.
        folder: where everything is written; its plan is extended by these cells.
        version: of genbench.
        observer: told how it goes.
        fail_fast: stop at the first failed cell.

    Raises:
        StoreError: the folder belongs to another run, or cannot be written.
        KeyboardInterrupt: after the cells in flight were ended; what is finished stays finished.
    """
    folder.write_plan(merged(folder.plan(), cells, version=version))
    done = {cell.key: record for cell in cells if (record := folder.record(cell.key)) and record.status == "ok"}
    waiting = [cell for cell in cells if cell.key not in done]
    observer.begin(cells, len(done))
    folder.note("run begins", cells=len(cells), resumed=len(done))
    resumed = len(done)
    desk = _Desk(folder, observer)
    try:
        for record in _finished(waiting, desk, fail_fast=fail_fast):
            done[record.key] = record
    except BaseException:
        desk.stop()
        folder.note("run interrupted", finished=len(done))
        raise
    folder.note("run ends", finished=len(done))
    return Summary(tuple(done[cell.key] for cell in cells if cell.key in done), resumed)


def _finished(waiting: Sequence[Cell], desk: _Desk, *, fail_fast: bool) -> Iterator[Record]:
    """Models one at a time, since they are timed; then controls, a few at once."""
    for cell in (cell for cell in waiting if cell.role == "model"):
        record = desk.run(cell)
        yield record
        if fail_fast and record.status == "failed":
            return
    with concurrent.futures.ThreadPoolExecutor(CONTROLS_AT_ONCE) as pool:
        futures = [pool.submit(desk.run, cell) for cell in waiting if cell.role == "control"]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            desk.stop()
            pool.shutdown(cancel_futures=True)
            raise


class _Desk:
    """Runs one cell through the executor and files its record."""

    def __init__(self, folder: RunFolder, observer: Observer) -> None:
        self._folder, self._observer = folder, observer
        self._executor = LocalExecutor()
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """End what is in flight; nothing more is filed."""
        self._stopped = True
        self._executor.stop()

    def run(self, cell: Cell) -> Record:
        """One cell from start to record."""
        folder = self._folder.clear_cell(cell.key)
        with self._lock:
            trained = self._folder.has_training(cell.key)
            self._folder.note("cell begins", key=cell.key, label=cell.label, seed=cell.seed, trained_before=trained)
            self._observer.cell_begins(cell)
        started = utc_now()
        outcome = self._executor.run(Job(cell, folder, self._weights(cell)), on_progress=self._teller(cell))
        if self._stopped:
            raise KeyboardInterrupt
        record = self._folder.record(cell.key)
        if record is None:
            trained = self._folder.has_training(cell.key)
            record = _without_record(cell, outcome, started, tail=log_tail(folder / "stderr.log"), trained=trained)
            self._folder.write_record(record)
        if record.status == "ok":
            self._show(cell)
        with self._lock:
            self._folder.note("cell ends", key=cell.key, label=cell.label, status=record.status)
            self._observer.cell_ends(cell, record)
        return record

    def _show(self, cell: Cell) -> None:
        """Pictures of the samples, and where they are sounds, WAV files and spectrograms."""
        folder, samples = self._folder.cell_folder(cell.key), self._folder.samples(cell.key)
        sounds = self._folder.sounds(cell.key)
        if sounds is not None:
            codes, levels, sample_rate = sounds
            save_sounds(codes, folder, levels=levels, sample_rate=sample_rate)
            samples = spectrograms(codes[:GRID_SAMPLES], levels=levels)
        if samples is not None:
            save_png(sample_grid(samples[:GRID_SAMPLES], columns=8), folder / "grid.png")

    def _teller(self, cell: Cell) -> _Tell:
        def tell(message: Mapping[str, object]) -> None:
            with self._lock:
                self._observer.cell_reports(cell, message)

        return tell

    def _weights(self, cell: Cell) -> Path | None:
        if cell.weights_from is None:
            return None
        owner = self._folder.record(cell.weights_from)
        finished = owner is not None and owner.status == "ok"
        return self._folder.cell_folder(cell.weights_from) if finished else None


def _without_record(cell: Cell, outcome: Outcome, started: str, *, tail: str, trained: bool) -> Record:
    """The record of a cell whose process ended without writing one, before its training was finished or after."""
    kind, message, hint = _cause(outcome, cell.protocol.deadline_seconds)
    hint = _TRAINED if trained else hint
    shown = f"{message}; last words: {tail}" if tail and not outcome.timed_out else message
    failure = Failure(phase=outcome.phase, type=kind, message=shown, hint=hint, log=f"cells/{cell.key}/stderr.log")
    return Record(key=cell.key, cell=cell, status="failed", error=failure, started=started, ended=utc_now())


def _cause(outcome: Outcome, deadline: float) -> tuple[str, str, str | None]:
    if outcome.timed_out:
        return "Timeout", f"no end after {deadline:g} s", "raise `deadline_seconds` of the tier, or see the log"
    code = outcome.returncode or 0
    if code == -signal.SIGKILL:
        return "Killed", "killed by SIGKILL", "most often the system ran out of memory: lower the batch size"
    if code < 0:
        return "Killed", f"killed by {signal.Signals(-code).name}", "the log has the stack if there is one"
    return "Exited", f"the process exited with code {code} before its record was written", None
