"""`genbench grid`: samples of all models of a run side by side, as one picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `grid`."""
    parser.add_argument("run_folder", type=Path, metavar="run", help="run folder")
    parser.add_argument("-o", "--output", type=Path, metavar="file", help="PNG to write (default: RUN/grid.png)")
    parser.add_argument("--columns", type=int, default=12, metavar="n", help="samples per row (default: 12)")
    parser.epilog = "example: genbench grid runs/images-quick -o samples.png"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the picture and print its path."""
    from genbench.core.errors import StoreError
    from genbench.report.grid import comparison_grid, save_png
    from genbench.store import RunFolder

    folder = RunFolder.open(options.run_folder)
    rows = {}
    for record in sorted(folder.records(), key=lambda record: record.cell.role != "model"):
        samples = folder.samples(record.key) if record.status == "ok" else None
        if samples is not None:
            name = record.cell.label if record.cell.seed == 0 else f"{record.cell.label} seed {record.cell.seed}"
            rows[name] = samples
    if not rows:
        raise StoreError(f"{folder.path}: no pictures in this run", hint="`genbench run` draws them")
    path = options.output or folder.path / "grid.png"
    save_png(comparison_grid(rows, columns=options.columns), path)
    sys.stdout.write(f"{path}\n")
    return 0
