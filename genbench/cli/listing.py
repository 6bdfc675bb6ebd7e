"""`genbench list`: names, where they come from, and their first line; imports nothing that it lists."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from pathlib import Path

from genbench.cli.wording import counted
from genbench.core.errors import SettingError, UnknownName, nearest
from genbench.core.registry import Listing, Registry

_FOLDERS = {"models": "models", "datasets": "data", "metrics": "metrics", "features": "features"}
_ARROWS = {"lower": "↓", "higher": "↑"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `list`."""
    parser.add_argument("kind", choices=[*_FOLDERS, "suites", "runs"], help="what to list")
    parser.add_argument("folder", nargs="?", type=Path, help="of `runs`: a folder of runs, or one run (default: runs)")
    parser.add_argument("--paradigm", metavar="name", help="of `models`: only those of one paradigm, such as `vq`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--root", type=Path, metavar="dir", help="the same as the folder of `runs`")
    parser.epilog = "example: genbench list models --paradigm vq\n  genbench list runs my_runs"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one row a name."""
    _check(options)
    root = options.folder or options.root or Path("runs")
    rows = _rows(options.kind, root)
    if options.paradigm is not None:
        rows = _of_paradigm(rows, options.paradigm)
    if options.kind == "metrics":
        return _metrics(rows, as_json=options.json)
    if options.json:
        sys.stdout.write(json.dumps([vars(row) for row in rows], indent=1) + "\n")
        return 0
    if not rows:
        where = f" in `{root}`; `genbench list runs DIR` looks elsewhere" if options.kind == "runs" else ""
        sys.stdout.write(f"no {options.kind} found{where}\n")
        return 0
    name_width = max(len(row.name) for row in rows)
    origin_width = max(len(row.origin) for row in rows)
    for row in rows:
        state = row.summary if row.broken is None else f"broken: {row.broken}"
        sys.stdout.write(f"{row.name:{name_width}}  {row.origin:{origin_width}}  {state}".rstrip() + "\n")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options of another kind."""
    if options.paradigm is not None and options.kind != "models":
        raise SettingError(
            f"`--paradigm` chooses models, not {options.kind}", hint="genbench list models --paradigm vq"
        )
    if options.kind != "runs" and (options.folder is not None or options.root is not None):
        raise SettingError(f"a folder is where runs lie, not {options.kind}", hint="genbench list runs DIR")
    if options.folder is not None and options.root is not None:
        raise SettingError(f"two folders: `{options.folder}` and `--root {options.root}`", hint="give one")


def _of_paradigm(rows: list[Listing], paradigm: str) -> list[Listing]:
    """Models of a paradigm, which may be a pattern, with or without the `@` that it has after `-m`."""
    chosen = [row for row in rows if fnmatch.fnmatch(row.origin, paradigm.removeprefix("@"))]
    if not chosen:
        known = {row.origin for row in rows}
        raise UnknownName(f"unknown paradigm `{paradigm}`", hint=nearest(paradigm.removeprefix("@"), known))
    return chosen


def _metrics(rows: list[Listing], *, as_json: bool) -> int:
    """Metrics with what they need, what they give, which way is better, and where they come from."""
    from genbench.core.declared import metric_declaration

    files = Registry[object]("metric", "metrics").files()
    found = [(row, metric_declaration(files[row.name], row.name) if row.name in files else None) for row in rows]
    if as_json:
        listed = [{**vars(row), **({} if declared is None else vars(declared))} for row, declared in found]
        sys.stdout.write(json.dumps(listed, indent=1) + "\n")
        return 0
    for row, declared in found:
        sys.stdout.write(f"{row.name}: {row.summary if row.broken is None else f'broken: {row.broken}'}\n")
        if declared is not None:
            scores = ", ".join(f"{name} {_ARROWS[better]}" for name, better in declared.scores)
            needs = ", ".join(declared.needs)
            sys.stdout.write(f"    gives {scores}; needs {needs}; from {declared.source}\n")
    return 0


def _rows(kind: str, root: Path) -> list[Listing]:
    if kind in _FOLDERS:
        return Registry[object](kind.removesuffix("s"), _FOLDERS[kind], group=f"genbench.{kind}").listing()
    if kind == "suites":
        return _suites()
    plans = [*root.glob("plan.json"), *root.glob("*/plan.json")]
    return [Listing(str(path.parent), *_run_row(path)) for path in sorted(plans)]


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
    return (
        f"{finished}/{counted(total, 'cell')}",
        "" if plan is None else f"suite {plan.suite}, tier {plan.tier}, {plan.created}",
    )
