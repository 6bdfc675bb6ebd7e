"""Fail unless every cell of a run is finished, scored, timed, and its controls are in order."""

from __future__ import annotations

import sys
from pathlib import Path

from genbench.report.leaderboard import control_order
from genbench.store import RunFolder


def main() -> int:
    """Check the run folder named on the command line."""
    folder = RunFolder.open(Path(sys.argv[1]))
    plan = folder.plan()
    records = folder.records()
    problems = [finding.message for finding in control_order(records)]
    if plan is None or len(records) != len(plan.cells):
        problems.append(f"{len(records)} records, expected one for each cell of the plan")
    for record in records:
        name = record.cell.label
        if record.status != "ok":
            problems.append(f"{name}: {record.error}")
            continue
        if record.score("fd_shapes_net") is None:
            problems.append(f"{name}: no Frechet distance")
        if record.cell.role == "model" and record.timing.train_images_per_second is None:
            problems.append(f"{name}: training was not timed")
        if record.cell.role == "model" and record.timing.sample_images_per_second is None:
            problems.append(f"{name}: sampling was not timed")
        if (
            record.cell.role == "model"
            and record.score("bits_per_dim") is None
            and "bits_per_dim" not in record.skipped
        ):
            problems.append(f"{name}: neither bits/dim nor a reason")
    sys.stderr.write("\n".join(problems) + "\n" if problems else f"{len(records)} records are in order\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
