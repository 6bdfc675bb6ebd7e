"""`genbench conform`: does a model keep the contract? For outsiders before they run a suite."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `conform`."""
    parser.add_argument("model", help="a registered name, `file.py`, `file.py:Class` or `module:Class`")
    parser.add_argument(
        "--dataset", default="shapes[resolution=8]", metavar="name", help="default: shapes[resolution=8]"
    )
    parser.epilog = "example: genbench conform mine.py"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line a check; 1 when one of them fails."""
    from genbench.conformance import check_reference
    from genbench.core.spec import parse_ref
    from genbench.plan import parse_model_ref

    findings = check_reference(parse_model_ref(options.model), parse_ref(options.dataset))
    sys.stdout.write(f"{options.model} on {options.dataset}; `--dataset` chooses other data\n")
    for finding in findings:
        skipped = finding.passed and finding.message.startswith("skipped: ")
        mark = "skip  " if skipped else "ok    " if finding.passed else "FAILED"
        sys.stdout.write(f"{mark}  {finding.name}: {finding.message.removeprefix('skipped: ')}\n")
    return 0 if all(finding.passed for finding in findings) else 1
