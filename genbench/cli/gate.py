"""`genbench gate`: fail when the present code does more work, takes longer or scores worse than before."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.gate_options import add_choice, add_outputs, deliver, effort_of, progress, selected_of
from genbench.core.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genbench.core.baseline import Baseline, Entry, Selected
    from genbench.core.spec import Cell
    from genbench.core.verdict import GateReport, Verdict
    from genbench.gating import Measure

_PHASES = ("train", "latency", "throughput")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gate`."""
    against = parser.add_argument_group("against what")
    against.add_argument("--baseline", type=Path, metavar="file", help="counters and scores; made where there is none")
    against.add_argument("--base", type=Path, metavar="dir", help="checkout or virtual environment to time against")
    against.add_argument("--run", type=Path, metavar="dir", dest="run_folder", help="a run whose scores are compared")
    against.add_argument("--counters-only", action="store_true", help="count, and time nothing")
    add_choice(parser)
    rule = parser.add_argument_group("rule")
    rule.add_argument("--phases", default="train,latency", metavar="names", help=f"to time, of {', '.join(_PHASES)}")
    rule.add_argument("--tolerance", type=float, default=0.02, metavar="share", help="slow-down (default: 0.02)")
    rule.add_argument("--max-rounds", type=int, default=15, metavar="n", help="pairs of rounds (default: 15)")
    rule.add_argument("--counters-tolerance", type=float, default=0.0, metavar="share", help="of counts (default: 0)")
    rule.add_argument(
        "--quality-tolerance", type=float, default=0.02, metavar="share", help="of scores (default: 0.02)"
    )
    rule.add_argument("--allow-versions", action="store_true", help="compare although torch or the device differs")
    add_outputs(parser)
    parser.epilog = (
        "example: genbench gate --baseline baseline.json --suite images_smoke --counters-only\n"
        "  genbench gate --base ../main --suite images_smoke -m ddpm --junit gate.xml\n"
        "exit codes: 0 passed, 1 regressed or vanished, 3 a cell fails, 4 inconclusive (with --strict),\n"
        "  5 not comparable, 6 nothing compared"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, compare, tell."""
    _check(options)
    report = _Gate(options).report()
    return deliver(report, json=options.json, junit=options.junit, github=options.github)


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be done before anything is measured."""
    if options.baseline is None and options.base is None:
        raise SettingError("nothing to hold it against", hint="give `--baseline FILE` or `--base DIR`")
    if options.max_rounds < 2:
        raise SettingError(f"`--max-rounds {options.max_rounds}`: a spread needs 2 or more")
    for name in ("tolerance", "counters_tolerance", "quality_tolerance"):
        if vars(options)[name] < 0:
            raise SettingError(f"`--{name.replace('_', '-')} {vars(options)[name]:g}`: a tolerance is not negative")
    unknown = [phase for phase in options.phases.split(",") if phase not in _PHASES]
    if unknown:
        raise SettingError(f"`--phases {options.phases}`: `{unknown[0]}` is not timed", hint=f"of {', '.join(_PHASES)}")


class _Gate:
    """One run of the gate: collects verdicts and notices."""

    def __init__(self, options: argparse.Namespace) -> None:
        from genbench.regression.baseline_file import read_baseline

        self._options = options
        known = options.baseline is not None and options.baseline.exists()
        self._baseline: Baseline | None = read_baseline(options.baseline) if known else None
        self._selected = self._choose()
        self._measure = self._measurer()
        self._verdicts: list[Verdict] = []
        self._notices: list[str] = []

    def report(self) -> GateReport:
        """Measure and compare everything that was asked for."""
        from genbench.core.verdict import GateReport
        from genbench.core.version import VERSION
        from genbench.regression.exit_code import exit_code
        from genbench.store import utc_now

        cells = self._cells()
        head = [*self._counts(cells), *self._scores(cells)]
        if self._options.base is not None and not self._options.counters_only:
            self._time(cells)
        code = exit_code(self._verdicts, strict=self._options.strict)
        if self._options.baseline is not None and self._baseline is None:
            code = self._save(head, code)
        made = (entry.environment for entry in head if entry.environment is not None)
        return GateReport(
            genbench_version=VERSION,
            created=utc_now(),
            title=self._title(),
            exit_code=code,
            strict=self._options.strict,
            verdicts=tuple(self._verdicts),
            notices=tuple(self._notices),
            environment=next(made, None),
        )

    def _choose(self) -> Selected | None:
        chosen = selected_of(self._options)
        if chosen is None and self._baseline is not None:
            chosen = self._baseline.selected
        if chosen is None and self._options.run_folder is None:
            raise SettingError("nothing to measure", hint="give `--suite NAME`, or a run with `--run DIR`")
        if chosen is None and self._options.base is not None:
            raise SettingError(
                "`--base` times models: which?", hint="give `--suite NAME`, and `-m MODEL` for some of it"
            )
        return chosen

    def _measurer(self) -> Measure | None:
        from genbench.gating import SideBySide, installation_of
        from genbench.rounds import HERE

        if self._selected is None:
            return None
        base = HERE if self._options.base is None else installation_of(self._options.base)
        return SideBySide(effort_of(self._options, self._selected.tier), self._options.out, base=base)

    def _cells(self) -> list[Cell]:
        from genbench.gating import chosen_cells

        if self._selected is None:
            return []
        cells, unknown = chosen_cells(self._selected)
        self._notices += [f"nothing is called `{name}` any more" for name in unknown]
        return cells

    def _counts(self, cells: Sequence[Cell]) -> list[Entry]:
        """Count head, and hold it against the baseline, or against base where there is no baseline."""
        from genbench.gating import count
        from genbench.regression.counters import compare_counters

        if self._measure is None:
            return []
        head = count(cells, "head", self._measure, tell=progress)
        base: Sequence[Entry] = []
        if self._baseline is not None:
            base = self._asked_for(self._baseline.of("counters"), cells)
        elif self._options.base is not None:
            base = count(cells, "base", self._measure, tell=progress)
        if base or self._baseline is not None:
            self._verdicts += compare_counters(
                base, head, tolerance=self._options.counters_tolerance, any_version=self._options.allow_versions
            )
        return head

    def _asked_for(self, entries: Sequence[Entry], cells: Sequence[Cell]) -> list[Entry]:
        """Entries of the baseline; where models were named, only theirs, for the others have not vanished."""
        from genbench.core.baseline import Row

        rows = {Row(cell.label, cell.dataset.label) for cell in cells}
        return [entry for entry in entries if not self._options.model or entry.row in rows]

    def _scores(self, cells: Sequence[Cell]) -> list[Entry]:
        from genbench.regression.entries import recorded
        from genbench.regression.quality import compare_quality
        from genbench.store import RunFolder

        scored = () if self._baseline is None else self._baseline.of("quality")
        if self._options.run_folder is None or self._options.counters_only:
            if scored and not self._options.counters_only:
                self._notices.append("the baseline's scores were not compared: give the new run with `--run DIR`")
            return []
        head = recorded(RunFolder.open(self._options.run_folder).records())
        if self._baseline is not None:
            tolerance = self._options.quality_tolerance
            base, head = self._asked_for(scored, cells), self._asked_for(head, cells)
            self._verdicts += compare_quality(base, head, tolerance=tolerance, noise=self._baseline.noise)
        return head

    def _time(self, cells: Sequence[Cell]) -> None:
        from genbench.gating import speed_gate
        from genbench.regression.rule import Rule

        assert self._measure is not None
        rule = Rule(tolerance=self._options.tolerance, max_rounds=self._options.max_rounds)
        phases = self._options.phases.split(",")
        self._verdicts += speed_gate(
            cells,
            measure=self._measure,
            rule=rule,
            phases=phases,
            any_version=self._options.allow_versions,
            tell=progress,
        )

    def _save(self, head: Sequence[Entry], code: int) -> int:
        """Keep what was measured as the first baseline; the exit code with that."""
        from genbench.core.baseline import Baseline
        from genbench.core.version import VERSION
        from genbench.regression.baseline_file import write_baseline
        from genbench.regression.exit_code import DONE, FAILED, NOTHING_MEASURED
        from genbench.regression.presence import matched
        from genbench.store import utc_now

        for gate in dict.fromkeys(entry.gate for entry in head):
            if not any(verdict.gate == gate for verdict in self._verdicts):
                self._verdicts += matched(gate, [], [entry for entry in head if entry.gate == gate])[1]
        if all(entry.error is not None for entry in head):
            self._notices.append("nothing could be measured, so no baseline was saved")
            return FAILED if head else NOTHING_MEASURED
        baseline = Baseline(genbench_version=VERSION, created=utc_now(), selected=self._selected, entries=tuple(head))
        write_baseline(self._options.baseline, baseline)
        self._notices.append(f"no baseline was there: this one was saved as the first: {self._options.baseline}")
        failed = any(verdict.outcome == "failed" for verdict in self._verdicts)
        return FAILED if failed and code == NOTHING_MEASURED else DONE if code == NOTHING_MEASURED else code

    def _title(self) -> str:
        sides = [str(side) for side in (self._options.baseline, self._options.base) if side is not None]
        return f"head against {' and '.join(sides)}"
