"""The comparison of two runs, bench files or baselines, for `genbench compare A B`."""

from __future__ import annotations

import json as json_
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.gate_options import deliver
from genbench.core.errors import StoreError

if TYPE_CHECKING:
    from genbench.core.baseline import Baseline, Entry
    from genbench.core.verdict import Gate, Verdict

_BENCH_FILE = "bench.json"
_GATES: tuple[Gate, ...] = ("counters", "speed", "quality")


def is_measured(path: Path) -> bool:
    """Whether a path holds what genbench has measured: a run folder, a bench, or a baseline, and no samples."""
    if path.is_dir():
        return (path / "plan.json").is_file() or (path / _BENCH_FILE).is_file()
    return path.suffix == ".json" and path.is_file() and _schema(path) in ("genbench.bench/1", "genbench.baseline/1")


def run_comparison(
    first: Path,
    second: Path,
    *,
    tolerance: float = 0.02,
    counters_tolerance: float = 0.0,
    quality_tolerance: float = 0.02,
    allow_versions: bool = False,
    strict: bool = False,
    json: Path | None = None,
    junit: Path | None = None,
    github: bool = False,
    models: tuple[str, str] | None = None,
) -> int:
    """Compare two measurements, print verdicts on everything that both hold, and return the exit code of the gate.

    Rows are matched by their label and their data; where `models` names two, these alone are set against each other.

    Args:
        first: base: a run folder, a bench file or its folder, or a baseline.
        second: head, likewise.
        tolerance: a slow-down of this share passes.
        counters_tolerance: a counter may grow by this share.
        quality_tolerance: a score may get worse by this share of base's.
        allow_versions: compare counts and speeds although versions or machines differ.
        strict: exit with 4 where a verdict is inconclusive.
        json: where to write the verdicts.
        junit: where to write them as JUnit XML.
        github: annotate the log and add to the summary of the step.
        models: a row of the first and one of the second; both may be of one run.

    Raises:
        StoreError: a path holds nothing that was measured, or is damaged.
        UnknownName: a side has no such row.
    """
    from genbench.core.verdict import GateReport
    from genbench.core.version import VERSION
    from genbench.regression.exit_code import exit_code
    from genbench.store import utc_now

    base, head = read_measured(first), read_measured(second)
    notices: list[str] = []
    if models is not None:
        base, head, notices = _opposed(base, head, models)
    verdicts: list[Verdict] = []
    for gate in _GATES:
        old, new = base.of(gate), head.of(gate)
        if bool(old) != bool(new):
            notices.append(f"{gate}: only in {first if old else second}, so not compared")
        if old and new:
            limit = {"counters": counters_tolerance, "speed": tolerance, "quality": quality_tolerance}[gate]
            verdicts += _compared(gate, base, head, tolerance=limit, allow_versions=allow_versions)
    verdicts, told = _of_one_thing(verdicts, base, head) if models is None else _on_both(verdicts)
    notices += told
    report = GateReport(
        genbench_version=VERSION,
        created=utc_now(),
        title=f"{second} against {first}"
        if models is None
        else f"{models[1]} of {second} against {models[0]} of {first}",
        exit_code=exit_code(verdicts, strict=strict),
        strict=strict,
        verdicts=tuple(verdicts),
        notices=tuple(notices),
        environment=next((entry.environment for entry in head.entries if entry.environment is not None), None),
    )
    return deliver(report, json=json, junit=junit, github=github)


def _compared(gate: Gate, base: Baseline, head: Baseline, *, tolerance: float, allow_versions: bool) -> list[Verdict]:
    from genbench.regression.counters import compare_counters
    from genbench.regression.quality import compare_quality
    from genbench.regression.speed_apart import compare_speeds

    old, new = base.of(gate), head.of(gate)
    if gate == "counters":
        return compare_counters(old, new, tolerance=tolerance, any_version=allow_versions)
    if gate == "speed":
        return compare_speeds(old, new, tolerance=tolerance, any_version=allow_versions)
    return compare_quality(old, new, tolerance=tolerance, noise=base.noise or head.noise)


def _opposed(base: Baseline, head: Baseline, models: tuple[str, str]) -> tuple[Baseline, Baseline, list[str]]:
    """Only the two rows, under one name, and what is to be said of them."""
    from genbench.regression.opposed import opposed

    found = opposed(base.entries, head.entries, first=models[0], second=models[1])
    old, new = (
        side.model_copy(update={"entries": tuple(entries), "noise": ()})
        for side, entries in ((base, found.base), (head, found.head))
    )
    return old, new, list(found.remarks)


def _on_both(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[str]]:
    from genbench.regression.opposed import measured_on_both

    return measured_on_both(verdicts)


def _of_one_thing(verdicts: Sequence[Verdict], base: Baseline, head: Baseline) -> tuple[list[Verdict], list[str]]:
    """Verdicts where what one side was never asked for has not vanished, and why."""
    from genbench.regression.shared_rows import why_foreign, without_missing

    gates = {verdict.gate for verdict in verdicts}
    old, new = ([entry for entry in side.entries if entry.gate in gates] for side in (base, head))
    why = why_foreign(old, new)
    if why is None:
        return list(verdicts), []
    hint = "to set two models against each other, name a row of each: --models FIRST SECOND"
    return without_missing(verdicts, old, new), [f"{why}; rows of one side alone are not compared; {hint}"]


def read_measured(path: Path) -> Baseline:
    """What was measured, in the form of a baseline.

    Raises:
        StoreError: nothing was measured there, or it is damaged.
    """
    from genbench.core.baseline import Baseline
    from genbench.core.version import VERSION
    from genbench.regression.baseline_file import read_baseline
    from genbench.store import utc_now

    if path.is_file() and _schema(path) == "genbench.baseline/1":
        return read_baseline(path)
    return Baseline(genbench_version=VERSION, created=utc_now(), entries=tuple(_entries(path)))


def _entries(path: Path) -> list[Entry]:
    from genbench.regression.entries import recorded
    from genbench.store import RunFolder

    if (path / "plan.json").is_file():
        return recorded(RunFolder.open(path).records())
    file = path / _BENCH_FILE if path.is_dir() else path
    if not file.is_file():
        hint = "give a run folder, a bench file of `genbench bench --json`, or a baseline"
        raise StoreError(f"{path}: nothing that was measured", hint=hint)
    return _benched(file)


def _benched(file: Path) -> list[Entry]:
    from pydantic import ValidationError

    from genbench.core.bench import BENCH_SCHEMA, BenchFile
    from genbench.regression.entries import benched

    found = _schema(file)
    if found != BENCH_SCHEMA:
        hint = "give a run folder, a bench file of `genbench bench --json`, or a baseline"
        raise StoreError(f"{file}: schema `{found}`, expected `{BENCH_SCHEMA}`", hint=hint)
    try:
        return benched(BenchFile.model_validate_json(file.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{file}: damaged: `{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error


def _schema(path: Path) -> str | None:
    """The schema that a JSON file names, None where it is none."""
    try:
        values = json_.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values.get("schema") if isinstance(values, dict) else None
