"""A gate with everything in it, and its golden files: `python tests/report/gate_reports.py` makes them again.

Read the difference before committing it: each changed line is a line that users see change.
"""

import io
from pathlib import Path

from rich.console import Console

from genbench.core.record import Environment
from genbench.core.verdict import GateReport, Verdict
from genbench.report.github import summary, workflow_commands
from genbench.report.junit import to_junit
from genbench.report.verdicts import print_verdicts

GOLDEN = Path(__file__).parent / "golden_gate"
NASTY = "a|b_{c}[x=1]<script>&\"'::error::%0A,\x07\n# two"
CPU = Environment(device="Xeon 8480", platform="Linux x86_64", python="3.11.9", torch="2.6.0", packages={}, threads=2)


def verdict(outcome, measure="train.flops", *, gate="counters", row="ddpm", **changed):
    return Verdict(gate=gate, row=row, dataset="shapes[resolution=8]", measure=measure, outcome=outcome, **changed)


def timed(outcome, change, low, high, *, measure="train_images_per_second", base=1310.0, **changed):
    unit, better = ("s", "lower") if measure == "latency_seconds" else ("img/s", "higher")
    given = {"base": base, "head": base * (1 + change), "change": change, "ci95": (low, high), "tolerance": 0.02}
    return verdict(
        outcome, measure, gate="speed", unit=unit, better=better, **{**given, "p": 0.001, "num_rounds": 9, **changed}
    )


def report(verdicts=None, *, code=1, **changed):
    given = {
        "genbench_version": "0.1.0",
        "created": "2026-01-05T10:00:00+00:00",
        "title": "head against baseline.json and ../base",
        "exit_code": code,
        "verdicts": tuple(everything() if verdicts is None else verdicts),
        "notices": ("nothing is called `old_model` any more",) if verdicts is None else (),
        "environment": CPU,
    }
    return GateReport(**{**given, **changed})


def everything():
    counts = {"unit": "FLOPs", "base": 123_456_789, "head": 123_456_789, "change": 0.0, "tolerance": 0.0}
    return [
        verdict("unchanged", **counts),
        verdict("unchanged", "train.operators", unit="calls", base=512, head=512, change=0.0, tolerance=0.0),
        verdict("regressed", "sample.operators", unit="calls", base=512, head=513, change=1 / 512, tolerance=0.0),
        verdict(
            "improved", "sample.flops", **{**counts, "head": 98_765_432, "change": 98_765_432 / 123_456_789 - 1}
        ).model_copy(update={"note": "check for skipped work"}),
        verdict("vanished", "cell", row="old_model", note="measured in base, not in head"),
        verdict("failed", "cell", row="vae", note="train: RuntimeError: 100% of memory\nsecond line"),
        verdict("new", "cell", row="edm", note="not in base"),
        verdict("fixed", "cell", row="ebm", note="failed in base: load: OSError: no such file"),
        verdict("still_failing", "cell", row="vqvae", note="train: Timeout: no end after 60 s"),
        verdict("not_comparable", "cell", row="realnvp", note="torch 2.6.0 in base, 2.7.0 in head"),
        timed("regressed", -0.0921, -0.113, -0.0709, confirmed=True),
        timed("inconclusive", 0.031, -0.015, 0.0791, measure="latency_seconds", base=0.00317, num_rounds=15),
        timed("unchanged", 0.001, -0.004, 0.006).model_copy(update={"row": "vae"}),
        verdict(
            "regressed",
            "fd_shapes_net",
            gate="quality",
            base=60.2,
            head=66.9,
            change=6.7,
            ci95=(3.1, 10.3),
            relative=False,
            tolerance=1.2,
            p=0.012,
            num_rounds=3,
        ),
        verdict(
            "unchanged", "precision", gate="quality", base=0.51, head=0.505, change=-0.005, relative=False
        ).model_copy(update={"better": "higher", "num_rounds": 1}),
        verdict("inconclusive", "cell", row=NASTY, note=NASTY),
    ]


def terminal(given, width):
    """What a terminal without colour shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, legacy_windows=False)
    print_verdicts(given, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


FILES = {
    "gate-200.txt": lambda given: terminal(given, 200),
    "gate-100.txt": lambda given: terminal(given, 100),
    "gate.xml": to_junit,
    "gate.md": summary,
    "gate-commands.txt": lambda given: "".join(f"{line}\n" for line in workflow_commands(given)),
    "gate.json": lambda given: given.model_dump_json(indent=1) + "\n",
}

if __name__ == "__main__":
    for name, render in FILES.items():
        (GOLDEN / name).write_text(render(report()), encoding="utf-8")
