"""`genbench plot`: a score against a cost, for the rows of finished runs; needs no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

KINDS = ("svg", "png", "pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plot`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="run folder")
    parser.add_argument("--x", default="network_evaluations", metavar="column", help="default: network_evaluations")
    parser.add_argument("--y", metavar="column", help="default: the score that the table is sorted by")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("tradeoff.svg"), metavar="file", help=".svg, .png or .pdf"
    )
    parser.epilog = (
        "example: genbench plot runs/samplers-quick --x latency_seconds -o latency.png\n"
        "columns are those of `genbench leaderboard RUN --format json`"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the first table of the runs."""
    from genbench.cli.leaderboard import records_of, speeds_of
    from genbench.core.errors import SettingError, StoreError
    from genbench.core.files import write_atomically
    from genbench.report.leaderboard import leaderboard
    from genbench.report.tradeoff import picture

    kind = options.output.suffix.removeprefix(".")
    if kind not in KINDS:
        raise SettingError(f"{options.output}: pictures are {', '.join(KINDS)}, by the end of the file's name")
    records = records_of(options.runs)
    if not records:
        raise StoreError(f"no finished cells in {', '.join(map(str, options.runs))}", hint="`genbench run` makes them")
    boards = leaderboard(records, sort=options.y, speeds=speeds_of(options.runs))
    for number, board in enumerate(boards):
        path = options.output if number == 0 else options.output.with_stem(f"{options.output.stem}-{number + 1}")
        write_atomically(path, picture(board, x=options.x, y=options.y or board.sort, kind=kind))
        sys.stdout.write(f"{path}: {board.title}{''.join(f', {why}' for why in board.split)}\n")
    return 0
