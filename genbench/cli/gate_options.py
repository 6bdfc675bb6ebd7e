"""Options and outputs that `gate`, `baseline` and the comparison of runs share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.core.errors import SettingError

if TYPE_CHECKING:
    from genbench.core.baseline import Selected
    from genbench.core.bench import Effort
    from genbench.core.verdict import GateReport


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose what is measured."""
    from genbench.cli.selection import add_models

    group = parser.add_argument_group("what to measure")
    group.add_argument("--suite", metavar="name", help="a shipped suite, or a path to a suite file")
    add_models(group)
    group.add_argument("--dataset", metavar="name", help="another dataset, such as `folder:PATH[resolution=32]`")
    group.add_argument("--tier", metavar="name", help="budget (default: quick on a CPU, standard on a GPU)")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    group.add_argument("--effort", choices=["smoke", "quick", "standard", "paper"], help="default: that of the tier")
    group.add_argument("--out", type=Path, default=Path("runs/gate"), metavar="dir", help="logs (default: runs/gate)")
    parser.set_defaults(seeds=None, text_encoder=None)


def selected_of(options: argparse.Namespace) -> Selected | None:
    """What the options choose, checked name by name; None without `--suite`."""
    from genbench.cli.selection import plan_of
    from genbench.core.baseline import Selected

    if options.suite is None:
        given = [f"`--{name}`" for name in ("model", "dataset", "tier") if vars(options)[name]]
        if given:
            raise SettingError(f"{', '.join(given)} without `--suite`", hint="name the suite too: --suite images_smoke")
        return None
    plan = plan_of(options)
    return Selected(
        suite=options.suite,
        tier=plan.tier,
        models=tuple(options.model),
        dataset=options.dataset,
        device=plan.cells[0].device,
    )


def effort_of(options: argparse.Namespace, tier: str) -> Effort:
    """The effort that was asked for, or that of the tier."""
    from genbench.core.bench import EFFORTS

    return EFFORTS[options.effort or (tier if tier in EFFORTS else "quick")]


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Declare where verdicts go."""
    group = parser.add_argument_group("outputs")
    group.add_argument("--strict", action="store_true", help="exit with 4 where a verdict is inconclusive")
    group.add_argument("--json", type=Path, metavar="file", help="write the verdicts there")
    group.add_argument("--junit", type=Path, metavar="file", help="write them as JUnit XML")
    group.add_argument(
        "--github", action="store_true", help="annotate the log, and add to the file of $GITHUB_STEP_SUMMARY"
    )


def deliver(report: GateReport, *, json: Path | None = None, junit: Path | None = None, github: bool = False) -> int:
    """Print the verdicts, write the asked-for files, and return the exit code."""
    from genbench.core.files import write_atomically
    from genbench.report.junit import to_junit
    from genbench.report.terminal import results_console
    from genbench.report.verdicts import print_verdicts

    print_verdicts(report, results_console())
    if json is not None:
        write_atomically(json, report.model_dump_json(indent=1).encode() + b"\n")
    if junit is not None:
        write_atomically(junit, to_junit(report).encode())
    if github:
        _tell_github(report)
    return report.exit_code


def _tell_github(report: GateReport) -> None:
    from genbench.core.files import unwritable
    from genbench.report.github import summary, workflow_commands

    for line in workflow_commands(report):
        sys.stdout.write(f"{line}\n")
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if not page:
        sys.stderr.write("no $GITHUB_STEP_SUMMARY here: the summary is left out\n")
        return
    try:
        with Path(page).open("a", encoding="utf-8") as file:  # other steps of the job write there too
            file.write(summary(report))
    except OSError as error:
        raise unwritable(Path(page), error) from error


def progress(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
