"""`genbench list`: names, where they come from, and their first line; imports nothing that it lists."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from genbench.core.registry import Listing, Registry

_FOLDERS = {"models": "models", "datasets": "data", "metrics": "metrics", "features": "features"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `list`."""
    parser.add_argument("kind", choices=[*_FOLDERS, "suites", "runs"], help="what to list")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--root", type=Path, default=Path("runs"), metavar="dir", help="where runs lie (default: runs)")
    parser.epilog = "example: genbench list models"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one row a name."""
    rows = _rows(options.kind, options.root)
    if options.json:
        sys.stdout.write(json.dumps([vars(row) for row in rows], indent=1) + "\n")
        return 0
    if not rows:
        sys.stdout.write(f"no {options.kind} found\n")
        return 0
    name_width = max(len(row.name) for row in rows)
    origin_width = max(len(row.origin) for row in rows)
    for row in rows:
        state = row.summary if row.broken is None else f"broken: {row.broken}"
        sys.stdout.write(f"{row.name:{name_width}}  {row.origin:{origin_width}}  {state}".rstrip() + "\n")
    return 0


def _rows(kind: str, root: Path) -> list[Listing]:
    if kind in _FOLDERS:
        return Registry[object](kind.removesuffix("s"), _FOLDERS[kind], group=f"genbench.{kind}").listing()
    if kind == "suites":
        return _suites()
    return [Listing(str(path.parent), *_run_row(path)) for path in sorted(root.glob("*/plan.json"))]


def _suites() -> list[Listing]:
    from genbench.core.errors import SuiteError
    from genbench.plan import read_suite, suite_files

    rows = []
    for name, path in suite_files().items():
        try:
            suite = read_suite(path)
            rows.append(Listing(name, "/".join(suite.tiers), suite.description))
        except SuiteError as error:
            rows.append(Listing(name, "", "", broken=error.message))
    return rows


def _run_row(path: Path) -> tuple[str, str]:
    from genbench.store import RunFolder

    folder = RunFolder(path.parent)
    records = folder.records()
    plan = folder.plan()
    total = 0 if plan is None else len(plan.cells)
    finished = sum(record.status == "ok" for record in records)
    return f"{finished}/{total} cells", "" if plan is None else f"suite {plan.suite}, tier {plan.tier}, {plan.created}"
