"""The self-check of a suite: controls whose order is known in advance must come out in that order."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.core.record import Better
from genbench.report._noise import Estimate, best_first, distinguishable
from genbench.report._numbers import significant
from genbench.report._rows import Subject
from genbench.report._table import Column, Finding

BEST = "real"
WORST = frozenset({"noise", "shuffled_texts"})
"""Nothing should be worse than these: there is one of each kind of data."""
MAY_BEAT_REAL = frozenset({"train_copy"})
"""A copy of the reference scores better than new data from the same law; that is what it is there to show."""


def control_findings(rows: Sequence[Subject], columns: Sequence[Column]) -> tuple[Finding, ...]:
    """Controls out of order: something beats `real`, or is beaten by the worst, by more than the noise of both."""
    controls = [row for row in rows if not row.is_model and row.records]
    found: list[Finding] = []
    for column in columns:
        if column.quality and column.better is not None:
            scored = [(row, value) for row in controls if (value := row.score(column.name)) is not None]
            found += _findings(column.name, column.better, scored)
    return tuple(found)


def _findings(metric: str, better: Better, scored: Sequence[tuple[Subject, Estimate]]) -> list[Finding]:
    found = []
    for row, value in scored:
        for other, rival in scored:
            if row is other or not _beats(rival, value, better):
                continue
            names = f"control `{other.label}` ({significant(rival.value)})"
            if _name(row) == BEST and other.any.cell.subject.name not in {BEST, *MAY_BEAT_REAL}:
                text = f"`{metric}`: {names} is better than held-out data, `{row.label}` ({significant(value.value)})"
                found.append(Finding(metric, other.label, text))
            if _name(other) in WORST and _name(row) not in WORST:
                text = f"`{metric}`: {names} is better than control `{row.label}` ({significant(value.value)})"
                found.append(Finding(metric, other.label, text))
    return found


def _name(row: Subject) -> str:
    return row.any.cell.subject.name


def _beats(a: Estimate, b: Estimate, better: Better) -> bool:
    """Whether `a` is better beyond the noise; without a known noise every difference counts."""
    if best_first(a.value, better) >= best_first(b.value, better):
        return False
    return a.stderr is None or b.stderr is None or distinguishable(a, b)
