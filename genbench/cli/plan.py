"""`genbench plan`: what a run would do, before a second is spent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from genbench.cli.selection import add_selection, check_needed_data, finished_cells, out_folder, plan_of
from genbench.cli.wording import counted
from genbench.core.errors import DataError
from genbench.core.spec import Cell
from genbench.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plan`."""
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="dir", help="run folder to compare with (default: runs/SUITE-TIER)")
    parser.epilog = (
        "example: genbench plan --suite images --tier smoke\n\n"
        "A plan whose data are not on this machine is printed too, with a warning on stderr and exit code 0."
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the cells of a plan, which of them are finished in the run folder, and which data are yet to be got."""
    from genbench.store import RunFolder

    plan = plan_of(options)
    folder = RunFolder(out_folder(options.out, plan))
    lines = [_title(plan), f"run folder {folder.path}", ""]
    labels = {cell.key: cell.label for cell in plan.cells}
    finished = finished_cells(plan, folder)
    for cell in plan.cells:
        work = "finished" if cell.key in finished else _work(cell)
        lines.append(f"  {work:15}  {cell.role:7}  {cell.label:36}  seed {cell.seed}{_how(cell, labels)}")
    lines += ["", f"{counted(len(plan.cells), 'cell')}, {len(finished)} finished"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    try:
        check_needed_data(plan, finished)
    except DataError as error:
        sys.stderr.write(f"\nwarning: `genbench run` would refuse this plan: {error.message}\n\nhint: {error.hint}\n")
    return 0


def _title(plan: Plan) -> str:
    suite, tier = plan.suite, plan.protocol
    return (
        f"{suite.name} v{suite.version}: {suite.description}\n"
        f"tier {plan.tier}: {tier.dataset.label}, preset {tier.preset}, {tier.num_samples} samples drawn, "
        f"{tier.num_reference} reference, {tier.num_likelihood} for likelihoods, {tier.precision}\n"
        f"features {suite.features.label}; metrics {', '.join(metric.label for metric in suite.metrics)}"
    )


def _work(cell: Cell) -> str:
    """What a run would do for a cell."""
    if cell.role == "control":
        return "score"
    return "train and score" if cell.weights_from is None and cell.samples_seen else "draw and score"


def _how(cell: Cell, labels: Mapping[str, str]) -> str:
    if cell.weights_from is not None:
        return f"  weights of `{labels[cell.weights_from]}`"
    return f"  {cell.samples_seen:,} samples seen" if cell.role == "model" else ""
