"""`genbench schema`: the JSON Schema of a file that genbench reads or writes."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

_KINDS = {
    "suite": "genbench.core.spec:Suite",
    "cell": "genbench.core.spec:Cell",
    "plan": "genbench.store:StoredPlan",
    "record": "genbench.core.record:Record",
    "score": "genbench.core.record:Score",
    "timing": "genbench.core.record:Timing",
    "environment": "genbench.core.record:Environment",
    "bench": "genbench.core.bench:BenchFile",
    "round": "genbench.core.bench:Round",
    "baseline": "genbench.core.baseline:Baseline",
    "gate": "genbench.core.verdict:GateReport",
}
"""Types of files, and of their parts that are read alone, by the name on the command line."""
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `schema`."""
    parser.add_argument(
        "kind",
        choices=_KINDS,
        metavar="kind",
        help="suite (what `--suite FILE` reads), plan and record (of a run folder), bench and round (of `bench`), "
        "baseline, gate (of `gate --json` and `compare --json`); or a part: cell, score, timing, environment",
    )
    parser.epilog = "example: genbench schema record"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    module, _, name = _KINDS[options.kind].partition(":")
    described = getattr(importlib.import_module(module), name).model_json_schema()
    sys.stdout.write(json.dumps({"$schema": _DRAFT, **described}, indent=2) + "\n")
    return 0
