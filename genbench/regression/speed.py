"""The gate of clocks: paired rounds of base and head, taken side by side on one machine."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genbench.core.bench import QUANTITIES, Round, unit_of
from genbench.core.verdict import Verdict
from genbench.prob.multiple_tests import benjamini_hochberg
from genbench.prob.rounds import LogRatio, paired_log_ratio
from genbench.regression.rule import ALPHA, SKIPPED_WORK, Rule, outcome

NOT_APPLICABLE = "NotApplicable"
"""Type of the failure of a round whose phase means nothing for its subject."""


@dataclass(frozen=True)
class Pair:
    """Two rounds that are neighbours in time."""

    base: Round
    head: Round


@dataclass(frozen=True)
class Series:
    """One quantity of one row over all pairs so far."""

    row: str
    dataset: str
    quantity: str
    base: tuple[float, ...]
    """Median of each round."""
    head: tuple[float, ...]
    ratios: tuple[float, ...] = ()
    """Of head to base in each pair, where readings have partners; empty: those of the medians."""
    flags: tuple[str, ...] = ()
    """Of all rounds, one for each round that has it."""

    @property
    def changes(self) -> tuple[float, ...]:
        """Head over base in each pair."""
        return self.ratios or tuple(after / before for before, after in zip(self.base, self.head, strict=True))

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from every other."""
        return self.row, self.dataset, self.quantity


def series_of(row: str, dataset: str, pairs: Sequence[Pair]) -> list[Series]:
    """A series for every quantity that both sides have read in every round."""
    if not pairs:
        return []
    sides = [side for pair in pairs for side in (pair.base, pair.head)]
    shared = [name for name in QUANTITIES if all(side.values.get(name) for side in sides)]
    flags = tuple(flag for side in sides for flag in side.flags)
    return [
        Series(
            row,
            dataset,
            name,
            tuple(statistics.median(pair.base.values[name]) for pair in pairs),
            tuple(statistics.median(pair.head.values[name]) for pair in pairs),
            tuple(_ratio(pair, name) for pair in pairs),
            flags,
        )
        for name in shared
    ]


def _ratio(pair: Pair, quantity: str) -> float:
    """Head over base: the median over readings that are neighbours in time, else of the medians of the rounds."""
    base, head = pair.base.values[quantity], pair.head.values[quantity]
    if pair.base.in_turns and pair.head.in_turns:
        return statistics.median(after / before for before, after in zip(base, head, strict=False))
    return statistics.median(head) / statistics.median(base)


def lost(row: str, dataset: str, pairs: Sequence[Pair]) -> list[Verdict]:
    """A verdict on every quantity that base reads and head does not."""
    before, after = ({name for round_ in side for name in round_.values} for side in _sides(pairs))
    note = "measured in base, not in head"
    return [
        Verdict(gate="speed", row=row, dataset=dataset, measure=name, outcome="vanished", note=note)
        for name in QUANTITIES
        if name in before - after
    ]


def failure(row: str, dataset: str, pairs: Sequence[Pair]) -> Verdict | None:
    """The verdict on rounds of which some failed, None where all went well or the phase does not apply.

    One failed round is enough: a step that fails now and then is broken. Where both sides have failed,
    the change is not to blame.
    """
    before, after = ([round_.error for round_ in side if round_.error is not None] for side in _sides(pairs))
    if {error.type for error in (*before, *after)} <= {NOT_APPLICABLE} and len(before) == len(after):
        return None
    result, error = (
        ("still_failing", after[0]) if before and after else ("failed", after[0]) if after else ("fixed", before[0])
    )
    phase = pairs[0].head.phase
    return Verdict.model_validate(
        {
            "gate": "speed",
            "row": row,
            "dataset": dataset,
            "measure": phase,
            "outcome": result,
            "note": f"{'failed in base: ' if result == 'fixed' else ''}{error.phase}: {error.type}: {error.message}",
        }
    )


def other_machine(row: str, dataset: str, pairs: Sequence[Pair]) -> Verdict | None:
    """A verdict where the sides ran on other versions or devices, None where they did not or nobody knows."""
    prints = {
        (pair.base.environment.fingerprint, pair.head.environment.fingerprint)
        for pair in pairs
        if pair.base.environment is not None and pair.head.environment is not None
    }
    differing = sorted((base, head) for base, head in prints if base != head)
    if not differing:
        return None
    note = f"`{differing[0][0]}` in base, `{differing[0][1]}` in head; `--allow-versions` compares all the same"
    measure = pairs[0].head.phase
    return Verdict(gate="speed", row=row, dataset=dataset, measure=measure, outcome="not_comparable", note=note)


def applies(pairs: Sequence[Pair]) -> bool:
    """Whether the phase means anything for the subject."""
    return not any(
        round_.error is not None and round_.error.type == NOT_APPLICABLE for side in _sides(pairs) for round_ in side
    )


def _sides(pairs: Sequence[Pair]) -> tuple[list[Round], list[Round]]:
    return [pair.base for pair in pairs], [pair.head for pair in pairs]


def judge(
    series: Sequence[Series], rule: Rule, decided: Mapping[tuple[str, str, str], Verdict]
) -> dict[tuple[str, str, str], Verdict | None]:
    """Verdicts on series at one look; None where more rounds are needed.

    Args:
        series: all of the gate, since chance is shared out among them.
        rule: tolerance and looks.
        decided: verdicts of earlier looks, which stand.
    """
    adjusted = benjamini_hochberg(np.array([sequential_p(one, rule) for one in series]))
    return {
        one.key: decided.get(one.key) or _verdict(one, rule, p=float(p))
        for one, p in zip(series, adjusted, strict=True)
    }


def slow_down(series: Series, rule: Rule, num_rounds: int | None = None) -> LogRatio:
    """Logarithm of the factor by which head takes longer, with an interval that holds at all looks together."""
    changes = series.changes[:num_rounds]
    ones = [1.0] * len(changes)
    first, second = (ones, changes) if QUANTITIES[series.quantity].better == "lower" else (changes, ones)
    return paired_log_ratio(first, second, level=rule.level)


def sequential_p(series: Series, rule: Rule) -> float:
    """p-value of `the true change lies within the tolerance` that looking L times does not spoil.

        p = min(1, L min_l p_l)

    It is at most 5 % exactly where some look's interval lay outside of the tolerance.
    """
    done = [look for look in rule.looks if look <= len(series.base)]
    if not done:
        return 1.0
    smallest = min(slow_down(series, rule, look).p_beyond(rule.log_tolerance) for look in done)
    return min(1.0, len(rule.looks) * smallest)


def _verdict(series: Series, rule: Rule, *, p: float) -> Verdict | None:
    num_rounds = len(series.base)
    last = num_rounds >= rule.max_rounds
    worse = slow_down(series, rule)
    result = outcome(worse, rule.log_tolerance, last=last)
    note = ""
    if result in ("regressed", "improved") and p > ALPHA:
        result, note = ("inconclusive" if last else None), "beyond the tolerance alone, not among all measures"
    if result is None:
        return None
    change, ci95 = _relative(worse, series.quantity)
    if result == "improved" and worse.estimate < -math.log1p(SKIPPED_WORK):
        note = "check for skipped work"
    flagged = [f"{flag} in {n} of {2 * num_rounds} rounds" for flag, n in sorted(Counter(series.flags).items())]
    return Verdict(
        gate="speed",
        row=series.row,
        dataset=series.dataset,
        measure=series.quantity,
        outcome=result,
        unit=unit_of(series.quantity, series.dataset),
        better=QUANTITIES[series.quantity].better,
        base=statistics.geometric_mean(series.base),
        head=statistics.geometric_mean(series.head),
        change=change,
        ci95=ci95,
        tolerance=rule.tolerance,
        p=p,
        num_rounds=num_rounds,
        note="; ".join([*([note] if note else []), *flagged]),
    )


def _relative(worse: LogRatio, quantity: str) -> tuple[float, tuple[float, float]]:
    """The ratio of head to base, less 1, with its interval; from the slow-down."""
    sign = 1.0 if QUANTITIES[quantity].better == "lower" else -1.0
    ends = sorted(math.expm1(sign * end) for end in (worse.low, worse.high))
    return math.expm1(sign * worse.estimate), (ends[0], ends[1])


def confirmed(alarm: Verdict, again: Verdict | None) -> Verdict:
    """What is reported of an alarm after new rounds: the new numbers, which luck has not chosen."""
    if again is not None and again.outcome == "regressed":
        return again.model_copy(update={"confirmed": True})
    found = (
        "failed" if again is None or again.change is None else f"gave {again.change:+.1%} in {again.num_rounds} rounds"
    )
    first = f"{alarm.change:+.1%} in the first {alarm.num_rounds} rounds" if alarm.change is not None else "an alarm"
    return alarm.model_copy(update={"outcome": "inconclusive", "note": f"not confirmed: {first}; new ones {found}"})
