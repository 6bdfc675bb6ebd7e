"""`genbench leaderboard`: the table of finished runs, in any format; needs no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.core.record import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `leaderboard`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="run folder")
    parser.add_argument("--sort", metavar="score", help="score to sort by (default: the suite's first)")
    formats = ["rich", "md", "latex", "csv", "json"]
    parser.add_argument("--format", choices=formats, default="rich", help="default: rich")
    parser.add_argument("-o", "--output", type=Path, metavar="file", help="write there instead of to stdout")
    parser.epilog = "example: genbench leaderboard runs/images-quick --format latex -o table.tex"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print or write the table."""
    from genbench.core.errors import StoreError
    from genbench.core.files import write_atomically

    records = records_of(options.runs)
    if not records:
        raise StoreError(f"no finished cells in {', '.join(map(str, options.runs))}", hint="`genbench run` makes them")
    if options.format == "rich" and options.output is None:
        from genbench.report.leaderboard import leaderboard
        from genbench.report.terminal import print_leaderboards, results_console

        print_leaderboards(leaderboard(records, sort=options.sort), results_console())
        return 0
    text = rendered(records, options.format, sort=options.sort)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_atomically(options.output, text.encode())
    return 0


def records_of(runs: Sequence[Path]) -> list[Record]:
    """Records of all run folders, in order.

    Raises:
        StoreError: one of them is no run folder.
    """
    from genbench.store import RunFolder

    return [record for path in runs for record in RunFolder.open(path).records()]


def rendered(records: Sequence[Record], kind: str, *, sort: str | None) -> str:
    """The table as text of one kind."""
    from genbench.report.leaderboard import leaderboard

    if kind == "csv":
        from genbench.report.frame import to_csv

        return to_csv(records)
    boards = leaderboard(records, sort=sort)
    if kind == "md":
        from genbench.report.markdown import to_markdown

        return to_markdown(boards)
    if kind == "latex":
        from genbench.report.latex import to_latex

        return to_latex(boards)
    if kind == "json":
        from genbench.report.document import to_json

        return to_json(boards)
    return _plain(records, sort)


def _plain(records: Sequence[Record], sort: str | None) -> str:
    """The terminal's table as text, for a file."""
    import io

    from rich.console import Console

    from genbench.report.leaderboard import leaderboard
    from genbench.report.terminal import print_leaderboards

    buffer = io.StringIO()
    print_leaderboards(leaderboard(records, sort=sort), Console(file=buffer, width=160, highlight=False))
    return buffer.getvalue()
