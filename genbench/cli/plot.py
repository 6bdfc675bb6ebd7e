"""`genbench plot`: scores against a cost or against shots, or how trainings went, of the rows of runs; no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.report.training import Curve

KINDS = ("tradeoff", "training", "shots")
FORMATS = ("svg", "png", "pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plot`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="run folder")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="tradeoff",
        help="a score against a cost, loss and looks against the examples seen, or scores against the number of shots "
        "(default: tradeoff)",
    )
    parser.add_argument("--x", metavar="column", help="of a tradeoff (default: network_evaluations)")
    parser.add_argument("--y", metavar="column", help="of a tradeoff (default: the score that the table is sorted by)")
    parser.add_argument("-o", "--output", type=Path, metavar="file", help=".svg, .png or .pdf (default: KIND.svg)")
    parser.epilog = (
        "example: genbench plot runs/samplers-quick --x latency_seconds -o latency.png\n"
        "  genbench plot runs/images-quick --kind training -o training.png\n"
        "columns are those of `genbench leaderboard RUN --format json`"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw each table of the runs, or all their trainings."""
    from genbench.core.errors import SettingError

    output: Path = options.output or Path(f"{options.kind}.svg")
    if output.suffix.removeprefix(".") not in FORMATS:
        raise SettingError(f"{output}: pictures are {', '.join(FORMATS)}, by the end of the file's name")
    if options.kind != "tradeoff" and (options.x or options.y):
        raise SettingError("`--x` and `--y` are of a tradeoff; trainings are drawn against the examples seen")
    return (_trainings if options.kind == "training" else _tables)(options, output)


def _tables(options: argparse.Namespace, output: Path) -> int:
    from genbench.cli.leaderboard import records_of, speeds_of
    from genbench.core.errors import StoreError
    from genbench.core.files import write_atomically
    from genbench.report.leaderboard import leaderboard
    from genbench.report.shots import shots_picture
    from genbench.report.tradeoff import left_out, picture

    records = records_of(options.runs)
    if not records:
        raise StoreError(f"no finished cells in {_named(options)}", hint="`genbench run` makes them")
    kind, x = output.suffix.removeprefix("."), options.x or "network_evaluations"
    boards = leaderboard(records, sort=options.y, speeds=speeds_of(options.runs))
    for number, board in enumerate(boards):
        path = output if number == 0 else output.with_stem(f"{output.stem}-{number + 1}")
        drawn = (
            shots_picture(board, kind=kind)
            if options.kind == "shots"
            else picture(board, x=x, y=options.y or board.sort, kind=kind)
        )
        write_atomically(path, drawn)
        if options.kind == "tradeoff":
            for label, why in left_out(board, x=x, y=options.y or board.sort).items():
                sys.stderr.write(f"left out `{label}`: {why}\n")
        sys.stdout.write(f"{path}: {board.title}{''.join(f', {why}' for why in board.split)}\n")
    return 0


def _trainings(options: argparse.Namespace, output: Path) -> int:
    from genbench.core.errors import StoreError
    from genbench.core.files import write_atomically
    from genbench.report.training import training_page

    curves, titles = [], []
    for path in options.runs:
        found, title = _curves_of(path)
        curves += found
        titles.append(title)
    if not curves:
        raise StoreError(f"no training has ended in {_named(options)}", hint="`genbench run` trains models")
    title = "; ".join(dict.fromkeys(titles))
    write_atomically(output, training_page(curves, title=title, kind=output.suffix.removeprefix(".")))
    sys.stdout.write(f"{output}: {title}\n")
    return 0


def _curves_of(path: Path) -> tuple[list[Curve], str]:
    """The trainings of a run folder in the order of its plan, and what the run was."""
    from genbench.report.training import Curve
    from genbench.store import RunFolder

    folder = RunFolder.open(path)
    plan, curves = folder.plan(), []
    assert plan is not None  # `open` has seen its file
    several = len({cell.seed for cell in plan.cells}) > 1
    for cell in plan.cells:
        losses, record = folder.losses(cell.key), folder.record(cell.key)
        if losses is not None and len(losses[0]):
            quality = None if record is None else record.timing.time_to_quality
            label = f"{cell.subject.label}, seed {cell.seed}" if several else cell.subject.label
            curves.append(Curve(label, *losses, quality))
    return curves, f"{plan.suite}, tier {plan.tier}"


def _named(options: argparse.Namespace) -> str:
    return ", ".join(map(str, options.runs))
