"""`genbench schema`: the JSON Schema of a file that genbench reads or writes."""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `schema`."""
    kinds = ["suite", "cell", "record", "score", "timing", "environment"]
    parser.add_argument("kind", choices=kinds, help="which file format")
    parser.epilog = "example: genbench schema record"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    from genbench.core.record import json_schemas

    sys.stdout.write(json.dumps(json_schemas()[options.kind.capitalize()], indent=2) + "\n")
    return 0
