"""The gate: measure base and head side by side until the rule decides, and compare what was counted and scored."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from genbench.core.baseline import Entry, Row, Selected
from genbench.core.bench import Effort, Phase, Round
from genbench.core.errors import SettingError, UnknownName
from genbench.core.spec import Cell
from genbench.core.verdict import Verdict
from genbench.core.version import VERSION
from genbench.plan import Selection, load_suite, make_plan
from genbench.regression.entries import counted
from genbench.regression.rule import Rule
from genbench.regression.speed import Pair, applies, confirmed, failure, judge, lost, other_machine, series_of
from genbench.rounds import HERE, Installation, RoundJob, Side, run_round, run_side_by_side

SideName = Literal["base", "head"]
TIMED: tuple[Phase, ...] = ("train", "latency")
"""Phases that the speed gate measures unless others are asked for."""
_PAIRED_BLOCKS, _PAIRED_REQUESTS = 10, 20
"""Readings of a round in a pair, at least: the median ratio of fewer neighbours is moved by one interruption."""


class Measure(Protocol):
    """Measures rounds of either side."""

    def __call__(self, side: SideName, cell: Cell, phase: Phase, index: int) -> Round:
        """One round, with its `error` where it failed."""

    def pair(self, cell: Cell, phase: Phase, index: int, *, first: SideName) -> Pair:
        """A round of each side under equal conditions; where one comes before the other, `first` does."""


Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """Rounds in fresh processes, of two installations on one machine; those of a pair take their blocks in turn."""

    effort: Effort
    folder: Path
    """For jobs, logs and results."""
    base: Installation = HERE
    head: Installation = HERE

    def __call__(self, side: SideName, cell: Cell, phase: Phase, index: int) -> Round:
        """Measure one round."""
        one = self._side(side, cell, phase, index, self.effort)
        return run_round(one.job, folder=one.folder, installation=one.installation)

    def pair(self, cell: Cell, phase: Phase, index: int, *, first: SideName) -> Pair:
        """Measure a round of each side in two processes at once; `first` starts first."""
        second: SideName = "head" if first == "base" else "base"
        effort = self.effort.model_copy(
            update={
                "min_blocks": max(self.effort.min_blocks, _PAIRED_BLOCKS),
                "requests": max(self.effort.requests, _PAIRED_REQUESTS),
            }
        )
        sides = (self._side(first, cell, phase, index, effort), self._side(second, cell, phase, index, effort))
        rounds = dict(zip((first, second), run_side_by_side(*sides), strict=True))
        return Pair(rounds["base"], rounds["head"])

    def _side(self, side: SideName, cell: Cell, phase: Phase, index: int, effort: Effort) -> Side:
        job = RoundJob(cell=cell, phase=phase, variant="eager", index=index, batch_size=None, effort=effort)
        folder = self.folder / side / f"{cell.key}-{phase}-{index}"
        return Side(job, folder, self.base if side == "base" else self.head)


def installation_of(path: Path) -> Installation:
    """The installation in a folder: a checkout of the repository, or a virtual environment.

    Raises:
        SettingError: it is neither.
    """
    if (path / "genbench" / "__init__.py").is_file():
        return Installation(path=path.resolve())
    for python in (path / "bin" / "python", path / "Scripts" / "python.exe"):
        if python.is_file():
            return Installation(python=str(python.absolute()))  # not resolved: the link makes the environment
    raise SettingError(
        f"`--base {path}`: neither a checkout (genbench/__init__.py) nor a virtual environment (bin/python)",
        hint="`git worktree add ../base main`, then `--base ../base`",
    )


def chosen_cells(selected: Selected) -> tuple[list[Cell], list[str]]:
    """One cell for each model of a selection, and the names that nothing is called any more."""
    suite = load_suite(selected.suite)
    words: list[tuple[str, ...]] = [(model,) for model in selected.models] or [()]
    cells: dict[Row, Cell] = {}
    unknown: list[str] = []
    for models in words:
        choice = Selection(tier=selected.tier, models=models, dataset=selected.dataset, device=selected.device)
        try:
            plan = make_plan(suite, choice, version=VERSION)
        except (UnknownName, SettingError):
            if not models:
                raise
            unknown += models
            continue
        for cell in plan.cells:
            if cell.role == "model":
                cells.setdefault(Row(cell.label, cell.dataset.label), cell)
    return list(cells.values()), unknown


def count(cells: Sequence[Cell], side: SideName, measure: Measure, *, tell: Tell) -> list[Entry]:
    """What each cell's calls do, counted in one untimed round."""
    rounds = []
    for number, cell in enumerate(cells, 1):
        tell(f"counting {side} [{number}/{len(cells)}] {cell.label}")
        rounds.append(measure(side, cell, "counters", 0))
    return counted(cells, rounds)


def speed_gate(
    cells: Sequence[Cell],
    *,
    measure: Measure,
    rule: Rule,
    phases: Sequence[Phase] = TIMED,
    any_version: bool = False,
    tell: Tell,
) -> list[Verdict]:
    """Verdicts on every timed quantity: paired rounds until the rule decides, then new ones for every alarm.

    Args:
        cells: of models, one for each row.
        measure: takes rounds.
        rule: tolerance, looks and cap.
        phases: what is timed.
        any_version: compare although torch or the device differs.
        tell: told what is going on.
    """
    subjects = [_Subject(cell, phase) for cell in cells for phase in phases]
    trial = _Trial(subjects, measure, rule, first_index=0, any_version=any_version, tell=tell)
    trial.run()
    alarms = {key: verdict for key, verdict in trial.verdicts.items() if verdict.outcome == "regressed"}
    if not alarms:
        return trial.all_verdicts()
    tell("1 alarm: measuring it again" if len(alarms) == 1 else f"{len(alarms)} alarms: measuring them again")
    suspects = [subject for subject in subjects if any(key in alarms for key in trial.keys(subject))]
    again = _Trial(suspects, measure, rule, first_index=rule.max_rounds, any_version=True, tell=tell, only=set(alarms))
    again.run()
    for key, alarm in alarms.items():
        trial.verdicts[key] = confirmed(alarm, again.verdicts.get(key))
    return [*trial.all_verdicts(), *again.broken.values()]


@dataclasses.dataclass(frozen=True, eq=False)  # a cell has no hash, and each subject is made once
class _Subject:
    cell: Cell
    phase: Phase

    @property
    def row(self) -> Row:
        return Row(self.cell.label, self.cell.dataset.label)


_Key = tuple[str, str, str]


class _Trial:
    """Pairs of rounds of many subjects, and what each look says of them."""

    def __init__(
        self,
        subjects: Iterable[_Subject],
        measure: Measure,
        rule: Rule,
        *,
        first_index: int,
        any_version: bool,
        tell: Tell,
        only: Collection[_Key] | None = None,
    ) -> None:
        self._pairs: dict[_Subject, list[Pair]] = {subject: [] for subject in subjects}
        self._measure, self._rule, self._tell, self._only = measure, rule, tell, only
        self._first_index, self._any_version = first_index, any_version
        self._order = random.Random(first_index)  # noqa: S311  # an order, no secret
        self.verdicts: dict[_Key, Verdict] = {}
        self.broken: dict[_Subject, Verdict] = {}

    def run(self) -> None:
        """Measure up to each look, and stop with what is decided there."""
        waiting, done = list(self._pairs), 0
        for look in self._rule.looks:
            for index in range(done, look):
                waiting = self._round(index, waiting)
            done = look
            waiting = self._undecided(waiting)
            if not waiting:
                return

    def keys(self, subject: _Subject) -> list[_Key]:
        """Of the series of a subject."""
        return [one.key for one in series_of(*subject.row, self._pairs[subject])]

    def all_verdicts(self) -> list[Verdict]:
        """Of series, of what failed, and of what head no longer measures."""
        gone = [one for subject in self._measured() for one in lost(*subject.row, self._pairs[subject])]
        return [*self.verdicts.values(), *self.broken.values(), *gone]

    def _measured(self) -> list[_Subject]:
        return [s for s, pairs in self._pairs.items() if pairs and s not in self.broken and applies(pairs)]

    def _round(self, index: int, waiting: list[_Subject]) -> list[_Subject]:
        """One pair of every waiting subject, in random order; those that go on waiting."""
        order = list(waiting)
        self._order.shuffle(order)
        for place, subject in enumerate(order):
            self._tell(f"round {index + 1} of at most {self._rule.max_rounds}: {subject.cell.label} {subject.phase}")
            self._pairs[subject].append(self._pair(subject, index, base_first=(index + place) % 2 == 0))
            found = failure(*subject.row, self._pairs[subject])
            if found is None and not self._any_version:
                found = other_machine(*subject.row, self._pairs[subject])
            if found is not None:
                self.broken[subject] = found
        return [s for s in waiting if s not in self.broken and applies(self._pairs[s])]

    def _pair(self, subject: _Subject, index: int, *, base_first: bool) -> Pair:
        """Who comes first changes from pair to pair, so that a drift favours neither."""
        first: SideName = "base" if base_first else "head"
        return self._measure.pair(subject.cell, subject.phase, self._first_index + index, first=first)

    def _undecided(self, waiting: list[_Subject]) -> list[_Subject]:
        """Judge all series together; the subjects that need more rounds."""
        series = {s: series_of(*s.row, self._pairs[s]) for s in self._measured()}
        judged = [one for many in series.values() for one in many if self._only is None or one.key in self._only]
        found = judge(judged, self._rule, self.verdicts)
        self.verdicts = {key: verdict for key, verdict in found.items() if verdict is not None}
        return [s for s in waiting if any(one.key in found and found[one.key] is None for one in series[s])]
