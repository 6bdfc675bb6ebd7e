"""The gate of counted work: floating-point operations, operator calls, bytes, parameters, network evaluations.

Counts are the same in every run on the same versions, so that no statistics are needed, nor a quiet machine, nor a
GPU. What else counts differently says nothing of the code: another torch, another kind of device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genbench.core.baseline import Entry, Row
from genbench.core.bench import Counters
from genbench.core.verdict import Verdict
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
        for name in COUNTED:
            yield from _of_counter(row, call, name, before, after, tolerance)


def _of_counter(
    row: Row, call: str, name: str, before: Counters, after: Counters, tolerance: float
) -> Iterator[Verdict]:
    old, new = _count(before, name), _count(after, name)
    if old is None and new is None:
        return
    a, b = old or 0, new or 0
    result, note = "unchanged", ""
    if b > a * (1.0 + tolerance):
        result = "regressed"
    elif b < a * (1.0 - tolerance):
        result = "improved"
        note = "check for skipped work" if b < a * (1.0 - SKIPPED_WORK) else ""
    escaped = sorted(set(after.uncounted) - set(before.uncounted))
    if name == "flops" and result == "improved" and escaped:
        result, note = "inconclusive", f"operators that are no longer counted: {', '.join(escaped)}"
    yield Verdict.model_validate(
        {
            "gate": "counters",
            "row": row.label,
            "dataset": row.dataset,
            "measure": f"{call}.{name}",
            "outcome": result,
            "unit": COUNTED[name],
            "base": old,
            "head": new,
            "change": b / a - 1.0 if a else None,
            "tolerance": tolerance,
            "note": note,
        }
    )


def _count(counters: Counters, name: str) -> int | None:
    counts = {
        "flops": counters.flops,
        "operators": counters.operators,
        "bytes_allocated": counters.bytes_allocated,
        "parameters": counters.parameters,
        "network_evaluations": counters.network_evaluations,
    }
    return counts[name]
