"""`genbench run`: the front door."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.selection import (
    add_selection,
    check_needed_data,
    check_text_encoders,
    finished_cells,
    out_folder,
    plan_of,
)
from genbench.core.bench import EFFORTS

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.core.record import Record
    from genbench.core.spec import Cell
    from genbench.store import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `run`."""
    add_selection(parser)
    where = parser.add_argument_group("run folder")
    where.add_argument("--out", type=Path, metavar="dir", help="where to write (default: runs/SUITE-TIER)")
    again = where.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with what is finished there (the default)")
    again.add_argument("--fresh", action="store_true", help="remove the run that is there first, and nothing else")
    how = parser.add_argument_group("execution")
    how.add_argument("--executor", choices=["local"], default="local", help="where cells run (default: local)")
    how.add_argument(
        "--rounds",
        choices=[*EFFORTS, "none"],
        metavar="effort",
        help=f"time finished models in rounds of their own: {', '.join(EFFORTS)}, none (default: the tier's)",
    )
    how.add_argument("--fail-fast", action="store_true", help="stop at the first failed cell")
    parser.epilog = "example: genbench run --suite images -m vae mine.py --seeds 0,1,2"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run a suite and print its leaderboard."""
    from rich.console import Console

    from genbench import runner
    from genbench.cli.progress import observer
    from genbench.core.version import VERSION
    from genbench.plan import check_data
    from genbench.report.leaderboard import leaderboard
    from genbench.report.terminal import print_leaderboards, results_console
    from genbench.store import RunFolder

    plan = plan_of(options)
    path = out_folder(options.out, plan)
    if options.fresh:
        check_data(plan)
        check_text_encoders(plan.cells)
        _remove_run(path)
    done = finished_cells(plan, RunFolder(path))
    check_needed_data(plan, done)  # before anything is written
    check_text_encoders([cell for cell in plan.cells if cell.key not in done])
    folder = RunFolder.create(path)
    console = Console(stderr=True, highlight=False)
    with observer(console, plan, path) as watching:
        summary = runner.run(plan.cells, folder, version=VERSION, observer=watching, fail_fast=options.fail_fast)
    effort = options.rounds or plan.protocol.rounds or "none"
    if effort != "none" and not (options.fail_fast and summary.failed):
        _time(plan.cells, folder, effort, console)
    speeds = folder.speeds()
    print_leaderboards(leaderboard(folder.records(), speeds=() if speeds is None else (speeds,)), results_console())
    for record in summary.failed:
        console.print(mend(record, path), markup=False, soft_wrap=True)
    sys.stdout.write(f"{path}\n")
    if not any(record.scores for record in summary.records):
        return 3 if summary.failed else 6
    return 3 if summary.failed else 0


def _time(cells: Sequence[Cell], folder: RunFolder, effort: str, console: Console) -> None:
    """Measure the speeds of what has finished."""
    from genbench.cli.round_progress import round_progress
    from genbench.timed_rows import time_rows

    with round_progress(console, f"timed rounds, effort {effort}") as tell:
        time_rows(cells, folder, effort=EFFORTS[effort], tell=tell)


def mend(record: Record, folder: Path) -> str:
    """Where to look for more on a failure, and what to do about it; its message stands in the table and in the log.

    Args:
        record: of a failed cell.
        folder: of the run.
    """
    error = record.error
    if error is None:
        return ""
    log = "" if error.log is None else f"; its log is {folder / error.log}"
    hint = "" if error.hint is None else f"\n  hint: {error.hint}"
    return f"{record.cell.label} seed {record.cell.seed} failed in {error.phase}{log}{hint}"


def _remove_run(path: Path) -> None:
    """Remove a run, and nothing that no run wrote."""
    from genbench.core.errors import StoreError
    from genbench.store import RunFolder

    if not path.exists():
        return
    if not (path / "plan.json").is_file() and any(path.iterdir()):
        raise StoreError(
            f"{path}: not a run folder, so `--fresh` does not remove it", hint="choose another with `--out`"
        )
    RunFolder(path).remove()
