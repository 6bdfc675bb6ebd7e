"""What two measurements have in common: a row that only one of them was asked for says nothing of the code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from genbench.core.baseline import Entry
from genbench.core.verdict import Verdict

_NAMED = 6
"""Rows that a sentence names before it counts the rest."""


def why_foreign(base: Sequence[Entry], head: Sequence[Entry]) -> str | None:
    """Why rows of one side are not missing from the other, None where they are: two measurements of one thing.

    They are of other things where their suites or tiers differ, and where both hold models but not one in common.
    """
    scopes = [
        sorted({f"suite `{entry.cell.suite}`, tier `{entry.cell.tier}`" for entry in side}) for side in (base, head)
    ]
    if scopes[0] != scopes[1]:
        return f"base is of {' and '.join(scopes[0])}, head of {' and '.join(scopes[1])}"
    models = [list(dict.fromkeys(e.row for e in side if e.cell.role == "model")) for side in (base, head)]
    if not all(models) or set(models[0]) & set(models[1]):
        return None
    rows = [[f"`{row.label}` on {row.dataset}" for row in side] for side in models]
    return f"no model is in both: {_some(rows[0])} in base, {_some(rows[1])} in head"


def without_missing(verdicts: Iterable[Verdict], base: Sequence[Entry], head: Sequence[Entry]) -> list[Verdict]:
    """Verdicts where a row that stands on one side alone has not vanished, nor is new: it cannot be compared."""
    before, after = ({(entry.row.label, entry.row.dataset) for entry in side} for side in (base, head))
    changed = []
    for verdict in verdicts:
        row = (verdict.row, verdict.dataset)
        if verdict.measure == "cell" and (row in before) != (row in after):
            note = "only in base" if row in before else "only in head"
            changed.append(verdict.model_copy(update={"outcome": "not_comparable", "note": note}))
        else:
            changed.append(verdict)
    return changed


def _some(names: Sequence[str]) -> str:
    left = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {left} more" if left > 0 else "")
