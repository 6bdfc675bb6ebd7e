"""Entries of a gate from what was measured: rounds, bench files, records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from genbench.core.baseline import Entry
from genbench.core.bench import Bench, BenchFile, Round
from genbench.core.record import Record
from genbench.core.spec import Cell
from genbench.regression.speed import NOT_APPLICABLE


def counted(cells: Sequence[Cell], rounds: Sequence[Round]) -> list[Entry]:
    """Entries of the gate `counters` from one counting round for each cell."""
    return [
        Entry(
            gate="counters",
            cell=cell,
            variant=done.variant,
            counters=done.counters,
            environment=done.environment,
            error=done.error,
        )
        for cell, done in zip(cells, rounds, strict=True)
        if done.error is None or done.error.type != NOT_APPLICABLE
    ]


def recorded(records: Iterable[Record]) -> list[Entry]:
    """Entries of the gate `quality` from the records of a run."""
    return [
        Entry(
            gate="quality",
            cell=record.cell,
            scores=record.scores,
            environment=record.environment,
            error=record.error,
        )
        for record in records
    ]


def benched(file: BenchFile) -> list[Entry]:
    """Entries of the gates `speed` and `counters` from a bench file."""
    entries = []
    for row in file.results:
        if row.measures or row.error is not None:
            entries.append(_timed(row, file))
        if row.counters:
            entries.append(
                Entry(
                    gate="counters",
                    cell=row.cell,
                    variant=row.variant,
                    counters=row.counters,
                    environment=file.environment,
                )
            )
    return entries


def _timed(row: Bench, file: BenchFile) -> Entry:
    canaries = [
        seconds
        for done in file.rounds
        if (done.label, done.variant) == (row.cell.label, row.variant)
        for seconds in (done.machine.canary_before_seconds, done.machine.canary_after_seconds)
        if seconds is not None
    ]
    return Entry(
        gate="speed",
        cell=row.cell,
        variant=row.variant,
        measures=row.measures,
        batch_size=row.best_batch_size,
        canary_seconds=statistics.median(canaries) if canaries else None,
        weights_sha256=row.weights_sha256,
        environment=file.environment,
        error=row.error if not row.measures else None,
    )
