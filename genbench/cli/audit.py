"""`genbench audit`: do the metrics move the right way as real data get worse?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from genbench.cli.evaluate import add_network_arguments, device_of, features_of, progress, split_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `audit`."""
    parser.add_argument("reference", help="training data: a dataset such as shapes[resolution=16], or a folder")
    parser.add_argument("--held-out", metavar="data", help="other real data (default: the split test of the reference)")
    parser.add_argument("--metrics", default="all", metavar="names", help="comma-separated (default: all)")
    add_network_arguments(parser)
    parser.add_argument("--num-samples", type=int, default=1000, metavar="n", help="on every step (default: 1000)")
    parser.add_argument(
        "--num-reference", type=int, default=2000, metavar="n", help="training pictures (default: 2000)"
    )
    parser.add_argument("--json", type=Path, metavar="file", help="write every value there")
    parser.add_argument("-o", "--output", type=Path, metavar="file", help="write the table there as Markdown")
    parser.epilog = "example: genbench audit 'shapes[resolution=16]' -o audit.md"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Climb the ladders and print the table."""
    from genbench.core.files import write_atomically
    from genbench.evaluation.audit import audit
    from genbench.report.audit import audit_markdown

    with progress() as tell:
        done = audit(
            options.reference,
            held_out=options.held_out,
            metrics=split_names(options.metrics),
            features=features_of(options),
            num_samples=options.num_samples,
            num_reference=options.num_reference,
            device=device_of(options.device),
            tell=tell,
        )
    document = done.document()
    page = audit_markdown(document)
    if options.json is not None:
        write_atomically(options.json, (json.dumps(document, indent=1) + "\n").encode())
    if options.output is not None:
        write_atomically(options.output, page.encode())
        sys.stdout.write(f"{options.output}\n")
    else:
        sys.stdout.write(page)
    return 0
