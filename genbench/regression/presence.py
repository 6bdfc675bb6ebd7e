"""Rows that are on one side only, or that fail on one."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.core.baseline import Entry, Row, by_row
from genbench.core.verdict import Gate, Outcome, Verdict

Pair = tuple[list[Entry], list[Entry]]


def matched(gate: Gate, base: Sequence[Entry], head: Sequence[Entry]) -> tuple[dict[Row, Pair], list[Verdict]]:
    """Rows that both sides have measured, and a verdict on every other."""
    before, after = by_row(base), by_row(head)
    both: dict[Row, Pair] = {}
    verdicts = []
    for row in dict.fromkeys([*before, *after]):
        old, new = before.get(row, []), after.get(row, [])
        found = _verdicts(gate, row, old, new)
        verdicts += found
        good = [entry for entry in old if entry.error is None], [entry for entry in new if entry.error is None]
        if good[0] and good[1]:
            both[row] = good
    return both, verdicts


def _verdicts(gate: Gate, row: Row, base: list[Entry], head: list[Entry]) -> list[Verdict]:
    """At most one for each seed."""
    before, after = ({entry.cell.seed: entry for entry in side} for side in (base, head))
    by_seed = gate == "quality" and before and after  # counts and clocks do not depend on the seed of a cell
    seeds: list[int | None] = [*sorted({*before, *after})] if by_seed else [None]
    found = []
    for seed in seeds:
        old = next(iter(base), None) if seed is None else before.get(seed)
        new = next(iter(head), None) if seed is None else after.get(seed)
        result, note = _presence(old, new)
        if result is not None:
            shown = note if seed is None or len(seeds) == 1 else f"seed {seed}: {note}"
            found.append(cell_verdict(gate, row, result, shown))
    return found


def _presence(base: Entry | None, head: Entry | None) -> tuple[Outcome | None, str]:
    if head is None:
        return (None, "") if base is None or base.error is not None else ("vanished", "measured in base, not in head")
    if base is None:
        return ("new", "not in base") if head.error is None else ("failed", _why(head))
    if head.error is not None:
        return ("failed" if base.error is None else "still_failing"), _why(head)
    return (None, "") if base.error is None else ("fixed", f"failed in base: {_why(base)}")


def _why(entry: Entry) -> str:
    assert entry.error is not None
    return f"{entry.error.phase}: {entry.error.type}: {entry.error.message}"


def cell_verdict(gate: Gate, row: Row, result: Outcome, note: str) -> Verdict:
    """A verdict on a whole row."""
    return Verdict(gate=gate, row=row.label, dataset=row.dataset, measure="cell", outcome=result, note=note)
