"""An audit of metrics as Markdown: how each score follows each ladder of damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast


class _Rung(TypedDict):
    score: str
    better: str
    ladder: str
    steps: Sequence[float]
    values: Sequence[float]
    correlation: float
    verdict: str


_SHOWN = {"right": "", "wrong way": " wrong way", "blind": " blind", "unsteady": " unsteady"}
_ARROWS = {"lower": "↓", "higher": "↑"}


def audit_markdown(document: Mapping[str, object]) -> str:
    """The audit as a page: a table of rank correlations, then the values behind it.

    Args:
        document: of the schema `genbench.audit/1`.
    """
    rungs = cast("Sequence[_Rung]", document["rungs"])
    ladders, scores = (list(dict.fromkeys(rung[key] for rung in rungs)) for key in ("ladder", "score"))
    found = {(rung["score"], rung["ladder"]): rung for rung in rungs}
    head = f"# Audit of metrics on `{document['reference']}` with `{document['features']}`"
    lines = [
        head,
        "",
        f"Held-out pictures, {document['num_samples']} on every step, get worse from left to right. A cell is the rank",
        "correlation of damage and badness: 1 is steadily worse. Beyond the noise at 95 %: *blind* cannot tell the",
        "last step from the first, *wrong way* takes the damage for an improvement, *unsteady* goes both ways. Some",
        "are right to be blind: precision need not see dropped modes; copies of training data bring a distance down.",
        "",
        "| score | " + " | ".join(ladders) + " |",
        "| :-- |" + " --: |" * len(ladders),
    ]
    for score in scores:
        cells = [_cell(found.get((score, ladder))) for ladder in ladders]
        arrow = next(_ARROWS[rung["better"]] for rung in rungs if rung["score"] == score)
        lines.append(f"| {score} {arrow} | " + " | ".join(cells) + " |")
    for ladder in ladders:
        lines += _values(ladder, [found[score, ladder] for score in scores if (score, ladder) in found])
    skipped = cast("Mapping[str, str]", document["skipped"])
    if skipped:
        lines += ["", "## Not audited", "", *(f"- `{name}`: {reason}" for name, reason in sorted(skipped.items()))]
    return "\n".join(lines) + "\n"


def _cell(rung: _Rung | None) -> str:
    return "" if rung is None else f"{rung['correlation']:.2f}{_SHOWN[rung['verdict']]}"


def _values(ladder: str, rungs: Sequence[_Rung]) -> list[str]:
    steps = " | ".join(f"{step:g}" for step in rungs[0]["steps"])
    rows = [f"| {rung['score']} | " + " | ".join(f"{value:.4g}" for value in rung["values"]) + " |" for rung in rungs]
    rule = "| :-- |" + " --: |" * len(rungs[0]["steps"])
    return ["", f"## {ladder}", "", f"| score | {steps} |", rule, *rows]
