"""`genbench leaderboard`: the table of finished runs, in any format; needs no torch."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.core.bench import BenchFile
    from genbench.core.record import Record
    from genbench.report.leaderboard import Leaderboard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `leaderboard`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="run folder")
    parser.add_argument("--sort", metavar="score", help="score to sort by (default: the suite's first)")
    parser.add_argument(
        "--columns",
        type=_names,
        metavar="names",
        help="only these, in this order, separated by commas: names as CSV and JSON spell them, or metrics for all of "
        "their scores (default: all)",
    )
    formats = ["rich", "md", "latex", "csv", "json"]
    parser.add_argument("--format", choices=formats, default="rich", help="default: rich")
    parser.add_argument("-o", "--output", type=Path, metavar="file", help="write there instead of to stdout")
    parser.epilog = (
        "example: genbench leaderboard runs/images-quick --format latex -o table.tex\n"
        "  genbench leaderboard runs/images-quick --columns fd_shapes_net,bits_per_dim,latency_seconds --format latex"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print or write the table."""
    from genbench.core.errors import StoreError
    from genbench.core.files import write_atomically

    if options.columns is not None:
        _check_columns(options.columns, options.runs)
    records, speeds = records_of(options.runs), speeds_of(options.runs)
    if not records:
        raise StoreError(f"no finished cells in {', '.join(map(str, options.runs))}", hint="`genbench run` makes them")
    if options.format == "rich" and options.output is None:
        from genbench.report.leaderboard import leaderboard
        from genbench.report.terminal import print_leaderboards, results_console

        boards = leaderboard(records, sort=options.sort, speeds=speeds, columns=options.columns)
        print_leaderboards(boards, results_console())
        return 0
    pictures = {} if options.output is None else _pictures(options.runs, options.output.parent)
    text = rendered(
        records, options.format, sort=options.sort, speeds=speeds, pictures=pictures, columns=options.columns
    )
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_atomically(options.output, text.encode())
    return 0


def _names(text: str) -> list[str]:
    names = [name for part in text.split(",") if (name := part.strip())]
    if not names:
        raise argparse.ArgumentTypeError("no name; write --columns fd_shapes_net,bits_per_dim")
    return names


def _check_columns(columns: Sequence[str], runs: Sequence[Path]) -> None:
    """Refuse names of columns with spaces between them, be they one word or read as runs.

    Raises:
        SettingError: a name has a space in it.
        StoreError: there is no run of a name that may be meant for a column.
    """
    from genbench.core.errors import SettingError, StoreError

    commas = "commas and no spaces separate columns"
    for name in columns:
        if len(name.split()) > 1:
            names = ",".join(part for column in columns for part in column.split())
            raise SettingError(f"`{name}` is no name of a column", hint=f"{commas}: `--columns {shlex.quote(names)}`")
    apart = [str(run).strip(",") for run in runs if run.name == str(run) and not run.exists()]
    if apart:
        names = shlex.quote(",".join([*columns, *apart]))
        raise StoreError(
            f"{apart[0]}: no run here",
            hint=f"`genbench list runs` shows the runs below; if it is a column, {commas}: `--columns {names}`",
        )


def records_of(runs: Sequence[Path]) -> list[Record]:
    """Records of all run folders, in order.

    Raises:
        StoreError: one of them is no run folder.
    """
    from genbench.store import RunFolder

    return [record for path in runs for record in RunFolder.open(path).records()]


def speeds_of(runs: Sequence[Path]) -> list[BenchFile]:
    """Timed rounds of the run folders that have some."""
    from genbench.store import RunFolder

    found = [RunFolder.open(path).speeds() for path in runs]
    return [file for file in found if file is not None]


def rendered(
    records: Sequence[Record],
    kind: str,
    *,
    sort: str | None,
    speeds: Sequence[BenchFile] = (),
    pictures: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """The table as text of one kind; CSV has the records alone, and pictures stand in Markdown and JSON.

    Args:
        records: of all runs.
        kind: `md`, `latex`, `csv`, `json` or `rich`.
        sort: score to sort by; None takes the suite's first.
        speeds: timed rounds of the runs.
        pictures: what is shown -> path from where the text will lie.
        columns: to show; None shows all.

    Raises:
        UnknownName: no table has a column of a name.
    """
    from genbench.report.leaderboard import leaderboard

    boards = leaderboard(records, sort=sort, speeds=speeds, columns=columns)
    if kind == "csv":
        from genbench.report.frame import to_csv

        names = dict.fromkeys(column.name for board in boards for column in board.columns)
        return to_csv(records, columns=None if columns is None else list(names))
    if kind == "md":
        from genbench.report.markdown import to_markdown

        return to_markdown(boards, pictures=pictures)
    if kind == "latex":
        from genbench.report.latex import to_latex

        return to_latex(boards)
    if kind == "json":
        from genbench.report.document import to_json

        return to_json(boards, pictures=pictures)
    return _plain(boards)


def _pictures(runs: Sequence[Path], folder: Path) -> dict[str, str]:
    """Pictures that `genbench grid` has left in the run folders, by their paths from a folder."""
    from genbench.report.grid import FILES

    found = {}
    for run in runs:
        for kind, name in FILES.items():
            if (run / name).is_file():
                what = kind if len(runs) == 1 else f"{kind} of {run.name}"
                found[what] = Path(os.path.relpath(run / name, folder)).as_posix()
    return found


def _plain(boards: Sequence[Leaderboard]) -> str:
    """The terminal's tables as text, for a file."""
    import io

    from rich.console import Console

    from genbench.report.terminal import print_leaderboards

    buffer = io.StringIO()
    print_leaderboards(boards, Console(file=buffer, width=160, highlight=False))
    return buffer.getvalue()
