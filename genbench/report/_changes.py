"""Verdicts in words and numbers, for every output that shows them."""

from __future__ import annotations

from collections import Counter

from genbench.core.verdict import OUTCOMES, GateReport, Outcome, Verdict
from genbench.report._numbers import MISSING, significant

WORDS: dict[Outcome, str] = {
    "regressed": "regressed",
    "failed": "fails",
    "vanished": "vanished",
    "not_comparable": "not comparable",
    "inconclusive": "inconclusive",
    "improved": "improved",
    "fixed": "fixed",
    "new": "new",
    "still_failing": "still fails",
    "unchanged": "unchanged",
}
MARKS: dict[Outcome, str] = {
    "regressed": "+",
    "failed": "!",
    "vanished": "!",
    "not_comparable": "x",
    "inconclusive": "?",
    "improved": "-",
    "fixed": "*",
    "new": "*",
    "still_failing": "!",
    "unchanged": "",
}
"""Signs that are read without colour, those of asv where it has one."""
_BAD: tuple[Outcome, ...] = ("regressed", "vanished", "failed", "not_comparable")


def is_bad(verdict: Verdict, report: GateReport) -> bool:
    """Whether the verdict makes the gate fail."""
    return verdict.outcome in _BAD or (report.strict and verdict.outcome == "inconclusive")


def worst_first(report: GateReport) -> list[Verdict]:
    """Verdicts in the order in which a person wants to see them."""
    return sorted(report.verdicts, key=lambda verdict: OUTCOMES.index(verdict.outcome))


def tally(report: GateReport) -> str:
    """How many of each: `1 regressed, 12 unchanged`."""
    found = Counter(verdict.outcome for verdict in report.verdicts)
    return ", ".join(f"{found[one]} {WORDS[one]}" for one in OUTCOMES if found[one]) or "nothing was compared"


def conclusion(report: GateReport) -> str:
    """One word or two on the exit code."""
    words = {
        0: "passed",
        1: "regression found",
        3: "some cell failed",
        4: "inconclusive",
        5: "not comparable",
        6: "nothing compared",
    }
    return words[report.exit_code]


def measure(verdict: Verdict) -> str:
    """Name of the quantity with its good direction; of a whole cell, the gate that speaks of it."""
    if verdict.measure == "cell":
        return f"cell ({verdict.gate})"
    if verdict.base is None and verdict.head is None:
        return verdict.measure
    return f"{verdict.measure} {'↓' if verdict.better == 'lower' else '↑'}"


def value(verdict: Verdict, side: float | None) -> str:
    """One side's value: counts in full, so that one more call is seen; other numbers in three figures."""
    if side is None:
        return MISSING
    return f"{side:,.0f}" if verdict.gate == "counters" else significant(side)


def change(verdict: Verdict) -> str:
    """The change, in per cent where it is relative."""
    return "" if verdict.change is None else _signed(verdict, verdict.change)


def interval(verdict: Verdict) -> str:
    """The 95 % interval of the change."""
    return "" if verdict.ci95 is None else " .. ".join(_signed(verdict, end) for end in verdict.ci95)


def tolerance(verdict: Verdict) -> str:
    """The largest change for the worse that passes."""
    if verdict.tolerance is None:
        return ""
    return f"{100 * verdict.tolerance:.3g} %" if verdict.relative else significant(verdict.tolerance)


def basis(verdict: Verdict) -> str:
    """What stands behind it: `9 rounds, confirmed`."""
    if verdict.num_rounds is None:
        return ""
    thing = "seed" if verdict.gate == "quality" else "round"
    plural = "" if verdict.num_rounds == 1 else "s"
    return f"{verdict.num_rounds} {thing}{plural}" + (", confirmed" if verdict.confirmed else "")


def subject(verdict: Verdict) -> str:
    """The row with its data."""
    return f"{verdict.row} on {verdict.dataset}"


def sentence(verdict: Verdict) -> str:
    """All of it in one line, for where there is no table."""
    head = f"{subject(verdict)}: {verdict.measure} {WORDS[verdict.outcome]}"
    unit = f" {verdict.unit}" if verdict.unit else ""
    values = ""
    if verdict.base is not None or verdict.head is not None:
        values = f"{value(verdict, verdict.base)} -> {value(verdict, verdict.head)}{unit}"
    spread = f"95 % interval {interval(verdict)}" if verdict.ci95 is not None else ""
    allowed = f"tolerance {tolerance(verdict)}" if verdict.tolerance is not None else ""
    inside = "; ".join(text for text in (change(verdict), spread, allowed, basis(verdict)) if text)
    numbers = f"{values} ({inside})" if values and inside else values
    return ": ".join(text for text in (head, numbers, verdict.note) if text)


def _signed(verdict: Verdict, number: float) -> str:
    if verdict.relative:
        percent = 100 * number
        if percent != 0 and abs(percent) < 0.005:
            return f"{percent:+.1e} %"  # one operator call more among millions is a change too
        return f"{percent:+.{2 if abs(percent) < 10 else 1}f} %"
    shown = significant(number)
    return shown if shown.startswith("-") or number == 0 else f"+{shown}"
