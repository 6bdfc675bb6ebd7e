"""Speeds of two bench files, whose rounds were not taken side by side.

What changed on the machine between the two is in the ratio too. So machines must be equal by their fingerprint, and a
fixed workload, the canary, must have taken the same time within 3 %; else a difference says nothing of the code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.core.baseline import Entry, Row
from genbench.core.bench import QUANTITIES, Measure
from genbench.core.verdict import Outcome, Verdict
from genbench.prob.multiple_tests import benjamini_hochberg
from genbench.prob.rounds import LogRatio, unpaired_log_ratio
from genbench.regression.presence import cell_verdict, matched
from genbench.regression.rule import ALPHA, SKIPPED_WORK, outcome

CANARY_DRIFT = 0.03
"""Share by which the fixed workload may differ between two files."""


@dataclass(frozen=True)
class _Change:
    row: Row
    base: Measure
    head: Measure
    worse: LogRatio | None
    """How much longer head takes, on the log scale; None where a side has one round only."""
    drift: float | None
    """Of the canary, as a share; None where one side has none."""
    note: str


def compare_speeds(
    base: Sequence[Entry], head: Sequence[Entry], *, tolerance: float = 0.02, any_version: bool = False
) -> list[Verdict]:
    """Verdicts on every timed quantity of every row.

    Args:
        base: entries of the gate `speed`.
        head: likewise.
        tolerance: a slow-down of this share passes.
        any_version: compare although the fingerprints differ.
    """
    both, verdicts = matched("speed", base, head)
    changes: list[_Change] = []
    for row, (before, after) in both.items():
        old, new = before[0], after[0]
        prints = [None if one.environment is None else one.environment.fingerprint for one in (old, new)]
        if prints[0] != prints[1] and not any_version:
            reason = f"`{prints[0]}` in base, `{prints[1]}` in head"
            verdicts.append(cell_verdict("speed", row, "not_comparable", reason))
            continue
        if (old.weights_sha256 is None) != (new.weights_sha256 is None):
            kinds = ["fresh" if one.weights_sha256 is None else "trained" for one in (old, new)]
            verdicts.append(
                cell_verdict("speed", row, "not_comparable", "{} weights in base, {} in head".format(*kinds))
            )
            continue
        for name in QUANTITIES:
            if name in old.measures and name in new.measures:
                changes.append(_change(row, old, new, name))
            elif name in old.measures:
                verdicts.append(_lost(row, name))
    p = [1.0 if one.worse is None else one.worse.p_beyond(math.log1p(tolerance)) for one in changes]
    adjusted = benjamini_hochberg(np.array(p))
    return [*verdicts, *(_verdict(one, tolerance, float(q)) for one, q in zip(changes, adjusted, strict=True))]


def _lost(row: Row, name: str) -> Verdict:
    note = "measured in base, not in head"
    return Verdict(gate="speed", row=row.label, dataset=row.dataset, measure=name, outcome="vanished", note=note)


def _change(row: Row, old: Entry, new: Entry, name: str) -> _Change:
    base, head = old.measures[name], new.measures[name]
    first, second = (base, head) if base.better == "lower" else (head, base)
    enough = min(len(base.medians), len(head.medians)) > 1
    worse = unpaired_log_ratio(first.medians, second.medians) if enough else None
    drift = None
    if old.canary_seconds is not None and new.canary_seconds is not None:
        drift = new.canary_seconds / old.canary_seconds - 1.0
    sizes = (old.batch_size, new.batch_size)
    note = f"batch size {sizes[0]} in base, {sizes[1]} in head" if sizes[0] != sizes[1] else ""
    return _Change(row, base, head, worse, drift, note if name == "sample_images_per_second" else "")


def _verdict(one: _Change, tolerance: float, p: float) -> Verdict:
    result, note = _outcome(one, tolerance, p)
    sign = 1.0 if one.base.better == "lower" else -1.0
    ends = None if one.worse is None else sorted(math.expm1(sign * end) for end in (one.worse.low, one.worse.high))
    return Verdict(
        gate="speed",
        row=one.row.label,
        dataset=one.row.dataset,
        measure=one.base.name,
        outcome=result,
        unit=one.base.unit,
        better=one.base.better,
        base=one.base.value,
        head=one.head.value,
        change=one.head.value / one.base.value - 1.0,
        ci95=None if ends is None else (ends[0], ends[1]),
        tolerance=tolerance,
        p=None if one.worse is None else p,
        num_rounds=min(len(one.base.medians), len(one.head.medians)),
        note="; ".join(text for text in (note, one.note) if text),
    )


def _outcome(one: _Change, tolerance: float, p: float) -> tuple[Outcome, str]:
    if one.worse is None:
        return "inconclusive", "one round has no interval: bench with more"
    result = outcome(one.worse, math.log1p(tolerance), last=True)
    assert result is not None
    if one.drift is not None and abs(one.drift) > CANARY_DRIFT:
        return "inconclusive", f"the machine itself changed: a fixed workload takes {1 + one.drift:.3f} times as long"
    if result in ("regressed", "improved") and p > ALPHA:
        return "inconclusive", "beyond the tolerance alone, not among all measures"
    skipped = result == "improved" and one.worse.estimate < -math.log1p(SKIPPED_WORK)
    return result, "check for skipped work" if skipped else ""
