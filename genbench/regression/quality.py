"""The gate of scores: runs with the same protocol and the same seeds, paired over seeds.

A score is a regression where the interval of its change lies beyond the tolerance for the worse. The tolerance is the
larger of the declared one and the noise floor, which runs of the same code have shown (`genbench baseline calibrate`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from genbench.core.baseline import Entry, NoiseFloor, Row
from genbench.core.record import Score
from genbench.core.verdict import Outcome, Verdict
from genbench.prob.intervals import Z95
from genbench.prob.multiple_tests import benjamini_hochberg
from genbench.prob.shift import Shift, paired_shift, shift
from genbench.regression.presence import cell_verdict, matched
from genbench.regression.rule import ALPHA, outcome


@dataclasses.dataclass(frozen=True)
class _Change:
    """One score of one row over its seeds."""

    row: Row
    name: str
    base: tuple[Score, ...]
    head: tuple[Score, ...]
    tolerance: float
    """In the units of the score."""
    calibrated: bool

    @property
    def sign(self) -> float:
        return 1.0 if self.base[0].better == "lower" else -1.0

    @property
    def same(self) -> bool:
        return [score.value for score in self.base] == [score.value for score in self.head]

    def worse(self) -> Shift | None:
        """How much worse head is, with its interval; None where nothing is known of the noise.

        The spread over seeds gives it, and for a single seed the standard errors of the two scores.
        """
        before, after = ([self.sign * score.value for score in side] for side in (self.base, self.head))
        if len(before) > 1:
            return paired_shift(before, after)
        errors = [_stderr(score) for score in (*self.base, *self.head)]
        known = [error for error in errors if error is not None]
        return shift(after[0] - before[0], math.hypot(*known), math.inf) if len(known) == len(errors) else None


def compare_quality(
    base: Sequence[Entry], head: Sequence[Entry], *, tolerance: float = 0.02, noise: Sequence[NoiseFloor] = ()
) -> list[Verdict]:
    """Verdicts on every score of every row.

    Args:
        base: entries of the gate `quality`, one for each seed.
        head: likewise.
        tolerance: declared: a share of the base's score.
        noise: what runs of the same code have shown.
    """
    both, verdicts = matched("quality", base, head)
    floors = {(Row(floor.label, floor.dataset), floor.score): floor for floor in noise}
    changes: list[_Change] = []
    for row, (before, after) in both.items():
        reason, pairs = _paired(before, after)
        if reason is not None:
            verdicts.append(cell_verdict("quality", row, "not_comparable", reason))
            continue
        for name in _names(before, after):
            found = _change(row, name, pairs, tolerance, floors)
            if isinstance(found, Verdict):
                verdicts.append(found)
            else:
                changes.append(found)
    return [*verdicts, *_judged(changes)]


def _paired(base: Sequence[Entry], head: Sequence[Entry]) -> tuple[str | None, list[tuple[Entry, Entry]]]:
    """Entries of the seeds that both have, or why they cannot be compared."""
    before, after = ({entry.cell.seed: entry for entry in side} for side in (base, head))
    seeds = sorted({*before} & {*after})
    if not seeds:
        return f"seeds {sorted(before)} in base, {sorted(after)} in head", []
    pairs = [(before[seed], after[seed]) for seed in seeds]
    for old, new in pairs:
        differing = sorted(name for name, value in _protocol(old).items() if _protocol(new)[name] != value)
        if differing:
            shown = (f"{name} {_protocol(old)[name]} in base, {_protocol(new)[name]} in head" for name in differing)
            return "another protocol: " + "; ".join(shown), []
    return None, pairs


def _protocol(entry: Entry) -> dict[str, object]:
    """What two cells share when their scores mean the same."""
    cell = entry.cell
    kept = cell.protocol.model_dump(mode="json", exclude={"seeds", "deadline_seconds", "timing", "dataset"})
    own = {"samples_seen": cell.samples_seen, "features": cell.features.label, "tier": cell.tier}
    return {**kept, **own}  # the tier's own budget may be overruled for a model


def _names(base: Sequence[Entry], head: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(score.name for entry in (*base, *head) for score in entry.scores))


def _change(
    row: Row,
    name: str,
    pairs: Sequence[tuple[Entry, Entry]],
    declared: float,
    floors: Mapping[tuple[Row, str], NoiseFloor],
) -> _Change | Verdict:
    """The change of one score, or a verdict where there is none to judge."""
    found = [(_score(old, name), _score(new, name)) for old, new in pairs]
    if any(old is not None and new is None for old, new in found):
        return _score_verdict(row, name, "vanished", "scored in base, not in head")
    if any(old is None and new is not None for old, new in found):
        return _score_verdict(row, name, "new", "not scored in base")
    both = [(old, new) for old, new in found if old is not None and new is not None]
    for old, new in both:
        reason = _other_meaning(old, new)
        if reason is not None:
            return _score_verdict(row, name, "not_comparable", reason)
    before, after = zip(*both, strict=True)
    floor = floors.get((row, name))
    level = abs(statistics.fmean(score.value for score in before))
    limit = max(declared * level, 0.0 if floor is None else noise_floor(floor, num_seeds=len(both)))
    return _Change(row, name, before, after, limit, floor is not None)


def _score(entry: Entry, name: str) -> Score | None:
    return next((score for score in entry.scores if score.name == name), None)


def noise_floor(floor: NoiseFloor, *, num_seeds: int) -> float:
    """How large a change of the mean over seeds two runs of the same code show 95 times in 100.

    t_{0.975, df} sqrt(2 / S) s
    """
    return float(stats.t.ppf(0.975, floor.degrees)) * math.sqrt(2.0 / num_seeds) * floor.deviation


def _other_meaning(base: Score, head: Score) -> str | None:
    """Why two scores of one name are not one quantity, None where they are."""
    fields = ("unit", "kind", "num_samples", "num_reference")
    old, new = ({**score.model_dump(include=set(fields)), **score.protocol} for score in (base, head))
    differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if not differing:
        return None
    return "another protocol: " + "; ".join(f"{n} {old.get(n)} in base, {new.get(n)} in head" for n in differing)


def _judged(changes: Sequence[_Change]) -> list[Verdict]:
    """Verdicts, with chance shared out among all scores."""
    found = [change.worse() for change in changes]
    p = [1.0 if one is None else one.p_beyond(c.tolerance) for one, c in zip(found, changes, strict=True)]
    adjusted = benjamini_hochberg(np.array(p))
    return [_verdict(c, one, float(p)) for c, one, p in zip(changes, found, adjusted, strict=True)]


def _verdict(change: _Change, worse: Shift | None, p: float) -> Verdict:
    result, note = _outcome(change, worse, p)
    base, head = (statistics.fmean(score.value for score in side) for side in (change.base, change.head))
    ends = None if worse is None else sorted((change.sign * worse.low, change.sign * worse.high))
    return Verdict(
        gate="quality",
        row=change.row.label,
        dataset=change.row.dataset,
        measure=change.name,
        outcome=result,
        unit=change.base[0].unit,
        better=change.base[0].better,
        base=base,
        head=head,
        change=head - base,
        ci95=None if ends is None else (ends[0], ends[1]),
        relative=False,
        tolerance=change.tolerance,
        p=None if worse is None else p,
        num_rounds=len(change.base),
        note=note,
    )


def _outcome(change: _Change, worse: Shift | None, p: float) -> tuple[Outcome, str]:
    if change.same:
        return "unchanged", "the same to the last digit"
    if worse is None:
        moved = change.sign * (change.head[0].value - change.base[0].value)
        if abs(moved) <= change.tolerance:
            return "unchanged", ""
        if not change.calibrated:
            return "inconclusive", "no interval: calibrate the baseline, or use more seeds"
        return ("regressed" if moved > 0.0 else "improved"), "beyond the noise floor"
    result = outcome(worse, change.tolerance, last=True)
    assert result is not None
    if result in ("regressed", "improved") and p > ALPHA:
        return "inconclusive", "beyond the tolerance alone, not among all scores"
    return result, ""


def _score_verdict(row: Row, name: str, result: Outcome, note: str) -> Verdict:
    return Verdict(gate="quality", row=row.label, dataset=row.dataset, measure=name, outcome=result, note=note)


def _stderr(score: Score) -> float | None:
    """Standard error of a score, from its 95 % interval where it states none itself."""
    if score.stderr is not None or score.ci95 is None:
        return score.stderr
    return (score.ci95[1] - score.ci95[0]) / (2 * Z95)
