"""The gate of counted work: floating-point operations, operator calls, bytes, parameters, network evaluations.

Counts are the same in every run on the same versions, so that no statistics are needed, nor a quiet machine, nor a
GPU. What else counts differently says nothing of the code: another torch, another kind of device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genbench.core.baseline import Entry, Row
from genbench.core.bench import Counters
from genbench.core.verdict import Outcome, Verdict
from genbench.regression.presence import cell_verdict, matched
from genbench.regression.rule import SKIPPED_WORK

COUNTED = {
    "flops": "FLOPs",
    "operators": "calls",
    "bytes_allocated": "bytes",
    "parameters": "parameters",
    "network_evaluations": "evaluations",
}
"""Counters by name, with their unit."""


def compare_counters(
    base: Sequence[Entry], head: Sequence[Entry], *, tolerance: float = 0.0, any_version: bool = False
) -> list[Verdict]:
    """Verdicts on every counter of every row.

    Args:
        base: entries of the gate `counters`.
        head: likewise.
        tolerance: share by which a counter may grow.
        any_version: compare although torch or the kind of device differs.
    """
    both, verdicts = matched("counters", base, head)
    for row, (before, after) in both.items():
        reason = None if any_version else _not_comparable(before[0], after[0])
        if reason is not None:
            verdicts.append(cell_verdict("counters", row, "not_comparable", reason))
            continue
        verdicts += _of_row(row, before[0], after[0], tolerance)
    return verdicts


def _not_comparable(base: Entry, head: Entry) -> str | None:
    """Why counts of the two say nothing of the code, None where they do."""
    if base.cell.device != head.cell.device:
        return f"device {base.cell.device} in base, {head.cell.device} in head"
    presets = [entry.cell.subject.preset or entry.cell.protocol.preset for entry in (base, head)]
    if presets[0] != presets[1]:
        return f"preset {presets[0]} in base, {presets[1]} in head"
    versions = [None if entry.environment is None else entry.environment.torch for entry in (base, head)]
    if versions[0] != versions[1]:
        return f"torch {versions[0]} in base, {versions[1]} in head; `--allow-versions` compares all the same"
    return None


def _of_row(row: Row, base: Entry, head: Entry, tolerance: float) -> Iterator[Verdict]:
    for call in dict.fromkeys([*base.counters, *head.counters]):
        before, after = base.counters.get(call), head.counters.get(call)
        if before is None or after is None:
            gone = after is None
            yield Verdict(
                gate="counters",
                row=row.label,
                dataset=row.dataset,
                measure=call,
                outcome="vanished" if gone else "new",
                note="counted in base, not in head" if gone else "not counted in base",
            )
            continue
        lost = escaped(before, after)
        for name in COUNTED:
            old, new = count_of(before, name), count_of(after, name)
            if old is not None or new is not None:
                yield count_verdict(row, f"{call}.{name}", name, old, new, lost, tolerance)


def escaped(before: Counters, after: Counters) -> list[str]:
    """Operators that were counted before and are not any more."""
    return sorted(set(after.uncounted) - set(before.uncounted))


def count_verdict(
    row: Row, measure: str, name: str, old: int | None, new: int | None, lost: Sequence[str], tolerance: float
) -> Verdict:
    """The verdict on one counter.

    Args:
        row: that it is of.
        measure: what it is called.
        name: of `COUNTED`.
        old: in base; None counts as 0.
        new: in head; None counts as 0.
        lost: operators that are no longer counted, which make fewer FLOPs mean nothing.
        tolerance: share by which it may grow.
    """
    a, b = old or 0, new or 0
    result: Outcome = "unchanged"
    note = ""
    if b > a * (1.0 + tolerance):
        result = "regressed"
    elif b < a * (1.0 - tolerance):
        result, note = "improved", "check for skipped work" if b < a * (1.0 - SKIPPED_WORK) else ""
    if name == "flops" and result == "improved" and lost:
        result, note = "inconclusive", f"operators that are no longer counted: {', '.join(lost)}"
    return Verdict(
        gate="counters",
        row=row.label,
        dataset=row.dataset,
        measure=measure,
        outcome=result,
        unit=COUNTED[name],
        base=old,
        head=new,
        change=b / a - 1.0 if a else None,
        tolerance=tolerance,
        note=note,
    )


def count_of(counters: Counters, name: str) -> int | None:
    """One of `COUNTED`; None where it does not apply."""
    counts = {
        "flops": counters.flops,
        "operators": counters.operators,
        "bytes_allocated": counters.bytes_allocated,
        "parameters": counters.parameters,
        "network_evaluations": counters.network_evaluations,
    }
    return counts[name]
