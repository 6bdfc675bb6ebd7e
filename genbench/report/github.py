"""Verdicts for GitHub Actions: a summary of the step in Markdown, and annotations in the log."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.core.verdict import GateReport, Verdict
from genbench.report import _changes as words
from genbench.report.markdown import escape_markdown

MAX_ANNOTATIONS = 10
"""GitHub shows this many errors of a step and drops the rest."""
MAX_ROWS = 200
"""A summary of more than 1 MiB is refused as a whole."""
_SIGNS = {
    "regressed": "🔴",
    "failed": "🔴",
    "vanished": "🔴",
    "not_comparable": "🟡",
    "inconclusive": "🟡",
    "improved": "🟢",
    "fixed": "🟢",
}


def summary(report: GateReport) -> str:
    """Markdown for `$GITHUB_STEP_SUMMARY`: what changed in a table, what did not folded away; ends with a newline."""
    ordered = words.worst_first(report)
    changed = [verdict for verdict in ordered if verdict.outcome != "unchanged"]
    same = [verdict for verdict in ordered if verdict.outcome == "unchanged"]
    verdict = words.conclusion(report)
    lines = [f"## genbench: {verdict}", "", escape_markdown(f"{report.title}: {words.tally(report)}"), ""]
    lines += _table(changed)
    if same:
        lines += ["<details><summary>unchanged</summary>", "", *_table(same), "</details>", ""]
    lines += [f"- {escape_markdown(notice)}" for notice in report.notices]
    return "\n".join(lines).rstrip("\n") + "\n"


def workflow_commands(report: GateReport) -> list[str]:
    """Workflow commands, one a line: errors for what makes the gate fail, notices for the rest that matters."""
    bad = [verdict for verdict in words.worst_first(report) if words.is_bad(verdict, report)]
    told = [_command("error", "genbench", words.sentence(verdict)) for verdict in bad[:MAX_ANNOTATIONS]]
    if len(bad) > MAX_ANNOTATIONS:
        told[-1] = _command(
            "error", "genbench", f"and {len(bad) - MAX_ANNOTATIONS + 1} more: see the summary of the step"
        )
    told += [_command("notice", "genbench", notice) for notice in report.notices]
    told.append(_command("notice", "genbench", f"{words.conclusion(report)}: {words.tally(report)}"))
    return told


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    """Escaped as the runner's own toolkit does; a bare newline would end the command and could begin another."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    head = ["", "row", "measure", "base", "head", "change", "95 % interval", "tolerance", "verdict"]
    lines = [_line(head), _line([":--"] * 3 + ["--:"] * 5 + [":--"])]
    lines += [_line(_cells(verdict)) for verdict in verdicts[:MAX_ROWS]]
    left = len(verdicts) - MAX_ROWS
    return [*lines, "", *([f"and {left} more", ""] if left > 0 else [])]


def _cells(verdict: Verdict) -> list[str]:
    told = "; ".join(text for text in (words.WORDS[verdict.outcome], words.basis(verdict), verdict.note) if text)
    texts = [
        words.subject(verdict),
        words.measure(verdict),
        words.value(verdict, verdict.base),
        words.value(verdict, verdict.head),
        words.change(verdict),
        words.interval(verdict),
        words.tolerance(verdict),
        told,
    ]
    return [_SIGNS.get(verdict.outcome, ""), *(escape_markdown(text) for text in texts)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
