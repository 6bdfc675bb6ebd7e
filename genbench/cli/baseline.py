"""`genbench baseline`: keep what the present code counts and scores, for `genbench gate` to hold the next against."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.gate_options import add_choice, effort_of, progress, selected_of
from genbench.core.errors import SettingError

if TYPE_CHECKING:
    from rich.table import Table

    from genbench.core.baseline import Baseline, Entry, NoiseFloor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the three verbs of `baseline`."""
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
    save = verbs.add_parser("save", help="count what models do, take scores and speeds from files, and keep them")
    save.add_argument("--baseline", type=Path, required=True, metavar="file", help="where to write")
    save.add_argument(
        "--from",
        dest="sources",
        type=Path,
        action="append",
        default=[],
        metavar="path",
        help="a run folder (scores) or a bench file (speeds, counters); repeat for more",
    )
    add_choice(save)
    save.epilog = (
        "example: genbench baseline save --baseline baseline.json --suite images_smoke --from runs/images_smoke"
    )
    save.set_defaults(run=_save)
    show = verbs.add_parser("show", help="print what a baseline holds")
    show.add_argument("baseline", type=Path, metavar="file")
    show.epilog = "example: genbench baseline show baseline.json"
    show.set_defaults(run=_show)
    calibrate = verbs.add_parser("calibrate", help="learn from runs of the same code how far scores move by themselves")
    calibrate.add_argument("runs", type=Path, nargs="+", metavar="run", help="two run folders or more")
    calibrate.add_argument("--baseline", type=Path, required=True, metavar="file", help="to which the floors are added")
    calibrate.epilog = "example: genbench baseline calibrate runs/a runs/b runs/c --baseline baseline.json"
    calibrate.set_defaults(run=_calibrate)
    parser.epilog = "example: genbench baseline save --baseline baseline.json --suite images_smoke"


def _save(options: argparse.Namespace) -> int:
    from genbench.cli.compare_runs import read_measured
    from genbench.core.baseline import Baseline
    from genbench.core.version import VERSION
    from genbench.regression.baseline_file import write_baseline
    from genbench.regression.exit_code import DONE, FAILED, NOTHING_MEASURED
    from genbench.store import utc_now

    selected = selected_of(options)
    if selected is None and not options.sources:
        raise SettingError("nothing to keep", hint="give `--suite NAME` to count, or `--from RUN`")
    entries = [entry for source in options.sources for entry in read_measured(source).entries]
    if selected is not None:  # what is counted now takes the place of counts in files
        entries = [entry for entry in entries if entry.gate != "counters"] + _counted(options)
    baseline = Baseline(
        genbench_version=VERSION,
        created=utc_now(),
        selected=selected,
        entries=tuple(entries),
        noise=_noise(options.baseline),
    )
    failed = [entry for entry in entries if entry.error is not None]
    if len(failed) == len(entries):
        _print(baseline)
        return FAILED if failed else NOTHING_MEASURED
    write_baseline(options.baseline, baseline)
    _print(baseline)
    return FAILED if failed else DONE


def _counted(options: argparse.Namespace) -> list[Entry]:
    from genbench.gating import SideBySide, chosen_cells, count

    selected = selected_of(options)
    assert selected is not None
    cells, _ = chosen_cells(selected)
    return count(cells, "head", SideBySide(effort_of(options, selected.tier), options.out), tell=progress)


def _noise(path: Path) -> tuple[NoiseFloor, ...]:
    """The noise floors of the baseline that is replaced: noise does not go with the code."""
    from genbench.regression.baseline_file import read_baseline

    return read_baseline(path).noise if path.exists() else ()


def _show(options: argparse.Namespace) -> int:
    from genbench.regression.baseline_file import read_baseline

    _print(read_baseline(options.baseline))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from genbench.regression.baseline_file import read_baseline, write_baseline
    from genbench.regression.calibration import noise_floors
    from genbench.regression.entries import recorded
    from genbench.store import RunFolder

    if len(options.runs) < 2:
        raise SettingError("one run has no spread", hint="give two run folders or more of the same code")
    baseline = read_baseline(options.baseline)
    floors = noise_floors([recorded(RunFolder.open(path).records()) for path in options.runs])
    if not floors:
        raise SettingError("no score is in two of these runs", hint="`genbench leaderboard RUN` shows what a run holds")
    known = {(one.label, one.dataset, one.score): one for one in (*baseline.noise, *floors)}
    changed = baseline.model_copy(update={"noise": tuple(known.values())})
    write_baseline(options.baseline, changed)
    _print(changed)
    return 0


def _print(baseline: Baseline) -> None:
    from genbench.report.terminal import results_console

    console = results_console()
    console.print(f"genbench {baseline.genbench_version}, {baseline.created}", markup=False)
    console.print(_entries(baseline))
    if baseline.noise:
        console.print()
        console.print(_floors(baseline))


def _entries(baseline: Baseline) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("gate", "row", "dataset", "seed", "holds", box=None)
    for entry in baseline.entries:
        names = [*entry.counters, *entry.measures, *(score.name for score in entry.scores)]
        holds = ", ".join(names) if entry.error is None else f"failed: {entry.error.message}"
        table.add_row(entry.gate, *map(escape, entry.row), str(entry.cell.seed), escape(holds))
    return table


def _floors(baseline: Baseline) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from genbench.regression.quality import noise_floor

    table = Table("row", "dataset", "score", "noise floor of one seed", "runs", "over", box=None)
    for floor in baseline.noise:
        limit = f"{noise_floor(floor, num_seeds=1):.3g}"
        over = "seeds" if floor.across_seeds else "runs of one seed"
        table.add_row(escape(floor.label), escape(floor.dataset), floor.score, limit, str(floor.num_runs), over)
    return table
