"""Timed rounds of the models of a run: their speeds as `genbench bench` measures them, with the weights of the run.

A cell reads its clock while it trains and draws, once. What a table publishes deserves more: rounds of all models in
turn, each in a process of its own, warm-up until readings are steady, latency, and throughput over batch sizes. They
come after the cells, so that nothing else runs meanwhile; what they say stands in `speeds.json` of the run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from genbench.core.bench import Bench, BenchFile, Effort, Phase
from genbench.core.files import WEIGHTS
from genbench.core.spec import Cell
from genbench.rounds import PHASES, Progress, bench
from genbench.store import RunFolder


def time_rows(
    cells: Sequence[Cell],
    folder: RunFolder,
    *,
    effort: Effort,
    phases: Sequence[Phase] = PHASES,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> BenchFile | None:
    """Measure every finished model that has not been measured yet; of several seeds the first.

    Args:
        cells: of the run.
        folder: of the run; it has their records and weights.
        effort: of the rounds.
        phases: what to measure.
        tell: told of the beginning and the end of every round.

    Returns:
        Everything measured so far, also written to the folder; None where no model has finished.

    Raises:
        StoreError: what was measured before cannot be read.
        KeyboardInterrupt: rounds of this call are lost.
    """
    finished = _finished(cells, folder)
    before = folder.speeds()
    measured = set() if before is None else {row.cell.key for row in before.results}
    waiting = [cell for cell in finished if cell.key not in measured]
    if not waiting:
        return before
    weights = {cell.key: folder.cell_folder(cell.weights_from or cell.key) for cell in waiting}
    made = bench(
        waiting,
        effort=effort,
        folder=folder.path / "rounds",
        phases=phases,
        weights={key: path for key, path in weights.items() if _has_weights(path)},
        tell=tell,
    )
    if before is not None:
        made = _joined(before, made, keep={cell.key for cell in cells})
    folder.write_speeds(made)
    return made


def _finished(cells: Sequence[Cell], folder: RunFolder) -> list[Cell]:
    """Of each model the first seed that has finished."""
    found: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        record = folder.record(cell.key) if cell.role == "model" else None
        if record is not None and record.status == "ok":
            found.setdefault((cell.label, cell.dataset.label), cell)
    return list(found.values())


def _has_weights(path: Path) -> bool:
    return (path / WEIGHTS).is_file()


def _joined(before: BenchFile, made: BenchFile, *, keep: set[str]) -> BenchFile:
    """Old rows that are still in the plan, then the new ones; the old go where they were made on another machine."""
    if before.environment.fingerprint != made.environment.fingerprint:
        return made
    old: tuple[Bench, ...] = tuple(row for row in before.results if row.cell.key in keep)
    return made.model_copy(update={"results": (*old, *made.results), "rounds": (*before.rounds, *made.rounds)})
