"""`genbench selftest`: do the metrics say what is known in closed form?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.evaluation.selftest import CheckResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `selftest`."""
    parser.add_argument("--json", type=Path, metavar="file", help="write every result there")
    parser.epilog = "example: genbench selftest --json selftest.json"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line a check, and their digest; 1 when one of them fails."""
    from genbench.core.files import write_atomically
    from genbench.evaluation.selftest import selftest

    done = selftest()
    if options.json is not None:
        write_atomically(options.json, (json.dumps(done.document(), indent=1) + "\n").encode())
    width = max(len(result.name) for result in done.results)
    lines = [f"{'check':<{width}}  {'measured':>12}  {'expected':>12}  {'within':>8}  ok"]
    lines += [_line(result, width) for result in done.results]
    lines += [f"{name}: no check asks for it" for name in done.unchecked]
    skipped = sum(result.skipped for result in done.results)
    failed = sum(not result.passed for result in done.results)
    lines += [f"{len(done.results) - skipped - failed} passed, {failed} failed, {skipped} skipped"]
    sys.stdout.write("\n".join([*lines, f"sha256 {done.sha256}", ""]))
    return 0 if done.passed else 1


def _line(result: CheckResult, width: int) -> str:
    measured = "-" if result.measured is None else f"{result.measured:.6g}"
    mark = "skip" if result.skipped else "ok" if result.passed else "FAILED"
    line = f"{result.name:<{width}}  {measured:>12}  {result.expected:>12.6g}  {result.tolerance:>8.2g}  {mark}"
    return f"{line}: {result.note}" if result.note else line
