"""`genbench conform`: does a model keep the contract? For outsiders before they run a suite."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `conform`."""
    parser.add_argument("model", help="a registered name, `file.py`, `file.py:Class` or `module:Class`")
    parser.add_argument(
        "--dataset", metavar="name", help="default: shapes[resolution=8], or data of the kind that the model takes"
    )
    parser.epilog = "example: genbench conform mine.py"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line a check; 1 when one of them fails."""
    from genbench.conformance import check_reference, usual_data
    from genbench.core.model import MODELS
    from genbench.core.spec import parse_ref
    from genbench.plan import parse_model_ref

    model = parse_model_ref(options.model)
    takes = MODELS.get(model.name).takes if model.name in MODELS.names() else ("image",)
    dataset = usual_data(takes) if options.dataset is None else parse_ref(options.dataset)
    findings = check_reference(model, dataset)
    sys.stdout.write(f"{options.model} on {dataset.label}; `--dataset` chooses other data\n")
    for finding in findings:
        skipped = finding.passed and finding.message.startswith("skipped: ")
        mark = "skip  " if skipped else "ok    " if finding.passed else "FAILED"
        sys.stdout.write(f"{mark}  {finding.name}: {finding.message.removeprefix('skipped: ')}\n")
    return 0 if all(finding.passed for finding in findings) else 1
