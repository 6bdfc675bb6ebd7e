"""Records to leaderboards: rows merged over seeds, ranked only where ranking means something.

A table holds only records with one suite, version, tier, dataset and protocol; `grouped` splits the rest off and says
why. Within a column, models fall into *tiers* that cannot be told apart at 95 %; the best is bold only where it leads
the next model by more than the noise. Speeds are ranked within one machine, where it was not busy. Failed cells stay in
the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from genbench.core.bench import BenchFile
from genbench.core.errors import UnknownName, nearest
from genbench.core.record import Better, Kind, Record
from genbench.report._busy import SPEEDS, busy, busy_remarks
from genbench.report._columns import MACHINE_COSTS, chosen, columns_of
from genbench.report._controls import control_findings
from genbench.report._groups import Group, grouped
from genbench.report._noise import SEEDS_FOR_SPREAD, Estimate, Place, best_first, places
from genbench.report._numbers import MISSING, beside, count, like, significant
from genbench.report._rows import (
    UNKNOWN_MACHINE,
    Subject,
    cost,
    failure_text,
    home_machine,
    one_line,
    subjects,
    timed_on,
    why_missing,
)
from genbench.report._table import INTERVAL, CellValue, Column, Finding, Leaderboard, Legend, Row

__all__ = ["CellValue", "Column", "Finding", "Leaderboard", "Legend", "Row", "control_order", "leaderboard"]

_WEAKEST_FIRST: tuple[Kind, ...] = ("estimate", "bound", "dequantised", "exact")
_COUNTED = frozenset({"samples_seen", "network_evaluations", "samples_to_quality"})
_TO_TARGET = frozenset({"time_to_quality", "samples_to_quality"})
BEYOND = ">"
_BORROWED = "samples from weights that another row trained"
_SMOKE = "tier smoke: small networks, trained for seconds; a check that all works, not a comparison of models"
_NO_NOISE = "given without an uncertainty, hence not ranked"
_MEANINGS = {
    "↓": "lower is better",
    "↑": "higher is better",
    "≤": "a bound, or exact only for dequantised data: the true value is not above it",
    "≥": "a bound, or exact only for dequantised data: the true value is not below it",
    "≈": "an estimate that can err either way",
    BEYOND: "not reached within the budget, which is the number shown; the median over seeds counts a miss as longest",
    INTERVAL: "95 % interval over samples",
    "±": f"standard deviation over seeds, given from {SEEDS_FOR_SPREAD} seeds on",
    "best": "best model, ahead of the next by more than the noise (95 %)",
}


def leaderboard(
    records: Sequence[Record],
    *,
    sort: str | None = None,
    speeds: Sequence[BenchFile] = (),
    columns: Sequence[str] | None = None,
) -> list[Leaderboard]:
    """Tables of all records, one for each group that may be ranked together.

    Args:
        records: of any runs, in any order; the result does not depend on the order.
        sort: name of a score or of a cost column; None takes the first score of each table, or where that is not shown
            the first that is.
        speeds: timed rounds of the runs; where they have a row, its speeds are theirs.
        columns: names of scores and costs to show, in this order, and of metrics for all their scores; None shows all.

    Raises:
        UnknownName: no table has a column named `sort`, or one of `columns`.
    """
    tables = [_Numbers(group, speeds) for group in grouped(records)]
    known = list(dict.fromkeys(column.name for table in tables for column in table.columns))
    if sort is not None and tables and sort not in known:
        raise UnknownName(f"no column `{sort}` to sort by", hint=nearest(sort, known))
    if columns is not None and tables:
        names = chosen(columns, known, [ref.name for record in records for ref in record.cell.metrics])
        for table in tables:
            table.show(names)
    return [_board(table, sort) for table in tables if table.shown or columns is None]


def control_order(records: Sequence[Record]) -> list[Finding]:
    """Controls out of order in any metric of any table; an empty list is a suite that passes its self-check.

    `real` must be the best control but for `train_copy`, and `noise` the worst; ties within the noise are allowed.
    """
    return [finding for board in leaderboard(records) for finding in board.findings]


class _Numbers:
    """The numbers of one table before they are worded, by row and column name."""

    def __init__(self, group: Group, speeds: Sequence[BenchFile]) -> None:
        self.group = group
        self.rows = subjects(group.records, speeds)
        self.home = home_machine(self.rows)
        self.columns = columns_of(self.rows, self.home)
        self.shown = self.columns
        self.values = {
            (index, column.name): value
            for index, row in enumerate(self.rows)
            for column in self.columns
            if (value := self._estimate(row, column)) is not None
        }
        self.places = {column.name: self._places(column) for column in self.columns}

    def show(self, names: Sequence[str]) -> None:
        """Show these columns alone, in this order, as far as they are there."""
        own = {column.name: column for column in self.columns}
        self.shown = tuple(own[name] for name in names if name in own)

    @property
    def usual(self) -> Column | None:
        """The column that sorts: the first score, or where that is not shown the first that is."""
        first = self.columns[:1]
        if first and first[0] in self.shown:
            return first[0]
        return next((column for column in (*[c for c in self.shown if c.quality], *self.shown, *first)), None)

    def _estimate(self, row: Subject, column: Column) -> Estimate | None:
        if column.quality:
            return row.score(column.name)
        return cost(row, column.name, timed_on(row, self.home))

    def _places(self, column: Column) -> dict[int, Place]:
        if not column.ranked or column.better is None:
            return {}
        ranked = {
            index: self.values[index, column.name]
            for index, row in enumerate(self.rows)
            if row.is_model and (index, column.name) in self.values and self.comparable(row, column)
        }
        placed = places(ranked, column.better)
        if any(row.is_model and self.crowded(row, column) for row in self.rows):  # who knows what it would have reached
            placed = {index: replace(place, best=False) for index, place in placed.items()}
        return placed

    def comparable(self, row: Subject, column: Column) -> bool:
        """Whether the number of a row may be ranked with those of the other rows."""
        if column.quality:
            return odd_count(row, column) is None
        if column.name not in MACHINE_COSTS:
            return True
        return self.home == timed_on(row, self.home) != UNKNOWN_MACHINE and not self.crowded(row, column)

    def crowded(self, row: Subject, column: Column) -> bool:
        """Whether a speed of a row was measured while the machine had other work."""
        return column.name in SPEEDS and busy(row, column.name, self.home)

    def without_noise(self, column: Column) -> bool:
        """Whether no number of a column comes with an uncertainty."""
        values = [value for (_, name), value in self.values.items() if name == column.name]
        return bool(values) and all(value.stderr is None for value in values)

    def order(self, by: Column | None) -> list[int]:
        """Rows from best to worst: models, then controls; numbers, then gaps, then failures."""

        def key(index: int) -> tuple[bool, bool, bool, bool, float, str]:
            row = self.rows[index]
            value = None if by is None else self.values.get((index, by.name))
            rank = 0.0 if value is None or by is None else best_first(value.value, by.better)
            rank = math.inf if value is not None and value.beyond else rank
            unranked = value is not None and by is not None and not self.comparable(row, by)
            return not row.is_model, not row.records, value is None, unranked, rank, row.label

        return sorted(range(len(self.rows)), key=key)


@dataclass
class _Notes:
    """Footnotes in the order in which the reader meets them, each text once."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> int:
        shown = one_line(text)
        if shown not in self.texts:
            self.texts.append(shown)
        return self.texts.index(shown)


def _board(table: _Numbers, sort: str | None) -> Leaderboard:
    by = next((c for c in table.columns if c.name == sort), table.usual)
    notes = _Notes()
    rows = tuple(_row(table, index, by, notes) for index in table.order(by))
    cell = table.group.records[0].cell
    return Leaderboard(
        suite=one_line(cell.suite),
        suite_version=cell.suite_version,
        tier=one_line(cell.tier),
        dataset=one_line(cell.dataset.label),
        features=one_line(cell.features.label),
        sort="" if by is None else by.name,
        columns=table.shown,
        rows=rows,
        footnotes=tuple(notes.texts),
        legend=_legend(table.shown, rows),
        findings=control_findings(table.rows, table.shown),
        split=tuple(map(one_line, table.group.split)),
        remarks=_remarks(table, by),
    )


def _row(table: _Numbers, index: int, by: Column | None, notes: _Notes) -> Row:
    subject = table.rows[index]
    cell = subject.any.cell
    place = None if by is None else table.places[by.name].get(index)
    marks = tuple(notes.add(text) for text in _row_notes(table, subject))
    return Row(
        label=subject.label,
        role=cell.role,
        paradigm=one_line(subject.any.paradigm),
        seeds=tuple(record.cell.seed for record in subject.records),
        failed_seeds=tuple(record.cell.seed for record in subject.failed),
        samples_seen=cell.samples_seen,
        tier=None if place is None else place.tier,
        cells=tuple(_cell(table, index, position, notes) for position in range(len(table.shown))),
        notes=marks,
    )


def _row_notes(table: _Numbers, row: Subject) -> list[str]:
    texts = []
    if row.records and row.failed:
        reasons = dict.fromkeys(failure_text(record.error) for record in row.failed)
        seeds = ", ".join(str(record.cell.seed) for record in row.failed)
        texts.append(f"failed for seed {seeds}: {'; '.join(reasons)}")
    owners = {record.key: other.label for other in table.rows for record in (*other.records, *other.failed)}
    source = row.any.cell.weights_from
    if source is not None:
        texts.append(
            f"samples from the weights of `{owners[source]}`" if source in owners else "reuses trained weights"
        )
    if row.replaced:
        texts.append(f"measured more than once for seed {', '.join(map(str, row.replaced))}: the last is shown")
    if row.is_model:
        texts += dict.fromkeys(flag for record in row.records for flag in record.flags)
    timed = timed_on(row, table.home)
    if row.is_model and row.records and timed != table.home:
        texts.append(f"timed on {timed}, hence not ranked in speed with the rows made on {table.home}")
    return texts


def _cell(table: _Numbers, index: int, position: int, notes: _Notes) -> CellValue:
    row, column = table.rows[index], table.shown[position]
    value = table.values.get((index, column.name))
    if value is not None:
        return _measured(table, index, column, value, notes)
    if row.records:
        reasons = [why_missing(row, column.name, table.rows)] if column.quality else []
        return CellValue(status="missing", value=MISSING, notes=tuple(notes.add(reason) for reason in reasons))
    if position > 0:
        return CellValue(status="failed", value=MISSING)
    reasons = list(dict.fromkeys(failure_text(record.error) for record in row.failed))
    return CellValue(status="failed", value="failed", notes=tuple(notes.add(reason) for reason in reasons))


def _measured(table: _Numbers, index: int, column: Column, value: Estimate, notes: _Notes) -> CellValue:
    row = table.rows[index]
    scores = [score for record in row.records if (score := record.score(column.name)) is not None]
    kind = min((score.kind for score in scores), key=_WEAKEST_FIRST.index, default=None) if column.quality else None
    place = table.places[column.name].get(index)
    shown = count(value.value) if column.name in _COUNTED else significant(value.value)
    spread, ci95 = (value.spread, value.ci95) if column.quality else (None, None)
    return CellValue(
        status="value",
        value=shown,
        mark=BEYOND if value.beyond else _mark(kind, column.better),
        spread="" if spread is None else f"± {beside(spread, shown)}",
        interval="" if ci95 is None else f"[{like(ci95[0], shown)}, {like(ci95[1], shown)}]",
        bold=place is not None and place.best and kind != "estimate",  # it may err in its own favour
        tier=None if place is None else place.tier,
        notes=tuple(notes.add(text) for text in _value_notes(table, row, column, value)),
        number=None if value.beyond else value.value,
        stderr=value.stderr,
        ci95=value.ci95,
        kind=kind,
        num_samples=scores[0].num_samples if column.quality else None,
    )


def _value_notes(table: _Numbers, row: Subject, column: Column, value: Estimate) -> list[str]:
    if not column.quality:
        return []
    odd = odd_count(row, column)
    bare = value.stderr is None and not table.without_noise(column)
    return [*([] if odd is None else [odd]), *([_NO_NOISE] if bare else [])]


def odd_count(row: Subject, column: Column) -> str | None:
    """Why a score is not ranked for its sample count, None where the count is that of the column."""
    counts = {score.num_samples for record in row.records if (score := record.score(column.name)) is not None}
    if counts <= {column.num_samples}:
        return None
    return f"from {', '.join(map(str, sorted(counts)))} examples, not {column.num_samples}: not ranked"


def _mark(kind: Kind | None, better: Better | None) -> str:
    """A bound is never better than the truth, so the truth lies on the better side of it."""
    if kind in {"bound", "dequantised"}:
        return "≥" if better == "higher" else "≤"
    return "≈" if kind == "estimate" else ""


def _legend(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Legend, ...]:
    cells = [cell for row in rows for cell in row.cells]
    used = {column.arrow for column in columns} | {cell.mark for cell in cells}
    used |= {INTERVAL for cell in cells if cell.interval and not cell.spread}
    used |= {"±" for cell in cells if cell.spread} | {"best" for cell in cells if cell.bold}
    tier = Legend("tier", "models of one tier cannot be told apart at 95 % in the column that sorts the table")
    tiers = (tier,) if any(row.tier is not None for row in rows) else ()
    return (*(Legend(sign, meaning) for sign, meaning in _MEANINGS.items() if sign in used), *tiers)


def _remarks(table: _Numbers, by: Column | None) -> tuple[str, ...]:
    """Metrics that apply to no row, and hence have no column; scores of which nobody gave the noise.

    Of a table whose columns were chosen, what concerns these.
    """
    records = [record for row in table.rows for record in row.records]
    whole, names = table.shown == table.columns, {column.name for column in table.shown}
    everywhere = [name for name in (records[0].skipped if records else {}) if all(name in r.skipped for r in records)]
    reasons = {name: "; ".join(sorted({record.skipped[name] for record in records})) for name in everywhere if whole}
    bare = [column.name for column in table.shown if column.quality and table.without_noise(column)]
    return (
        *([_SMOKE] if table.group.records[0].cell.tier == "smoke" else []),
        *(busy_remarks(table.rows, table.home) if names & SPEEDS else []),
        *(_rounds(table.rows) if names & MACHINE_COSTS else []),
        *(_target(records) if names & _TO_TARGET else []),
        *(one_line(f"`{name}` applies to no row: {reasons[name]}") for name in sorted(reasons)),
        *(f"`{name}` is {_NO_NOISE}" for name in bare),
        *([] if by is None or by in table.shown else [f"sorted by `{by.name}`, which is not shown"]),
    )


def _rounds(rows: Sequence[Subject]) -> tuple[str, ...]:
    """Which speeds come from timed rounds."""
    timed = [row.speeds for row in rows if row.speeds is not None]
    counts = {len(measure.medians) for speeds in timed for measure in speeds.measures.values()}
    if not counts:
        return ()
    every = len(timed) == sum(bool(row.records) and row.is_model for row in rows)
    of = "speeds" if every else f"speeds of {', '.join(row.label for row in rows if row.speeds is not None)}"
    return (f"{of}: {_span(counts)} rounds, each in a process of its own; sampling at the best batch size",)


def _span(counts: Iterable[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _target(records: Sequence[Record]) -> tuple[str, ...]:
    """What `time to target` is the time to."""
    found = next((record.timing.time_to_quality for record in records if record.timing.time_to_quality), None)
    if found is None:
        return ()
    sign = "≥" if found.better == "higher" else "≤"
    unit = f" {found.unit}" if found.unit else ""
    return (
        one_line(
            f"time to target: seconds of training to the second of the first two looks in a row with `{found.score}` "
            f"{sign} {found.target:g}{unit}, from {found.num_samples} samples every {found.every:,} examples"
        ),
    )
