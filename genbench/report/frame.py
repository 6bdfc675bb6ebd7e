"""Records as a tidy data frame: one row for each subject, seed and score; and the same as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pandas as pd

from genbench.core.record import Record, Score
from genbench.report._givers import metric_of
from genbench.report._groups import newest
from genbench.report._rows import failure_text, one_line

_SCORE = ("value", "unit", "better", "kind", "stderr", "ci95_low", "ci95_high", "ci95_half_width", "interval")
_MACHINE = "fingerprint"
_COST = (
    "num_parameters",
    "samples_seen",
    "train_images_per_second",
    "sample_images_per_second",
    "latency_seconds",
    "real_time_factor",
    "network_evaluations",
    "train_seconds",
    "peak_memory_gib",
    "time_to_quality",
    "samples_to_quality",
    "quality_budget_seconds",
    _MACHINE,
)
COLUMNS = (
    *("suite", "suite_version", "tier", "dataset", "label", "role", "paradigm", "seed", "device", "status", "score"),
    *_SCORE,
    *("num_samples", "num_reference", "protocol", "reason"),
    *_COST,
    "key",
)
"""Columns of the frame, in order."""

Value = str | int | float | None


def frame(records: Sequence[Record], *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One row for each subject, seed and score, with the costs of its cell beside it.

    `status` is `ok`, `skipped` or `failed`; a skipped metric and a failed cell have a row of their own, with a
    `reason` and no value. `protocol` is JSON with sorted keys. Equal sets of records give equal frames.

    Args:
        records: of any runs.
        columns: names of the scores that have rows and of the costs that have columns; None keeps all. Without a score
            among them there is one row for each subject and seed.
    """
    rows = [row for record in sorted(newest(records), key=_canonical) for row in _chosen_rows(record, columns)]
    kept = {_MACHINE, *(columns or ()), *(["quality_budget_seconds"] if "time_to_quality" in (columns or ()) else [])}
    names = [name for name in COLUMNS if columns is None or name not in _COST or name in kept]
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=_dtype(name)) for name in names})


def to_csv(records: Sequence[Record], *, columns: Sequence[str] | None = None) -> str:
    """The frame as CSV with a header; what is absent is empty."""
    return str(frame(records, columns=columns).to_csv(index=False, lineterminator="\n"))


def _chosen_rows(record: Record, columns: Sequence[str] | None) -> Iterator[dict[str, Value]]:
    """Rows of the chosen scores; a metric that was skipped has one where it would have given one of them."""
    if columns is None or record.status == "failed":
        yield from _rows(record)
        return
    scores = [name for name in columns if name not in _COST]
    if not scores:
        yield {**_cell(record), **_cost(record), "status": record.status}
        return
    metrics = {ref.label: ref.name for ref in record.cell.metrics}
    for row in _rows(record):
        name = str(row["score"])
        giver = metrics.get(name, name)
        if name in scores or (row["status"] == "skipped" and any(metric_of(score, [giver]) for score in scores)):
            yield row


def _canonical(record: Record) -> tuple[str, int, str, str, str, str, int, str]:
    cell = record.cell
    role = "" if cell.role == "model" else cell.role  # models first
    return (
        cell.suite,
        cell.suite_version,
        cell.tier,
        cell.dataset.label,
        role,
        cell.label,
        cell.seed,
        record.key,
    )


def _rows(record: Record) -> Iterator[dict[str, Value]]:
    shared = {**_cell(record), **_cost(record)}
    if record.status == "failed":
        yield {**shared, "status": "failed", "reason": failure_text(record.error)}
    for score in record.scores:
        yield {**shared, "status": record.status, **_score(score)}
    for name, reason in sorted(record.skipped.items()):
        yield {**shared, "status": "skipped", "score": name, "reason": one_line(reason)}


def _cell(record: Record) -> dict[str, Value]:
    cell = record.cell
    return {
        "suite": cell.suite,
        "suite_version": cell.suite_version,
        "tier": cell.tier,
        "dataset": cell.dataset.label,
        "label": one_line(cell.label),
        "role": cell.role,
        "paradigm": one_line(record.paradigm),
        "seed": cell.seed,
        "device": cell.device,
        "key": record.key,
    }


def _cost(record: Record) -> dict[str, Value]:
    timing = record.timing
    train, sample = timing.train_images_per_second, timing.sample_images_per_second
    latency, real_time = timing.latency_seconds, timing.real_time_factor
    target = timing.time_to_quality  # its budget without a time is a miss
    return {
        "num_parameters": record.num_parameters,
        "samples_seen": record.cell.samples_seen,
        "train_images_per_second": None if train is None else train.median,
        "sample_images_per_second": None if sample is None else sample.median,
        "latency_seconds": None if latency is None else latency.median,
        "real_time_factor": None if real_time is None else real_time.median,
        "network_evaluations": timing.network_evaluations,
        "train_seconds": timing.train_seconds,
        "peak_memory_gib": timing.peak_memory_gib,
        "time_to_quality": None if target is None else target.seconds,
        "samples_to_quality": None if target is None else target.samples_seen,
        "quality_budget_seconds": None if target is None else target.budget_seconds,
        "fingerprint": None if record.environment is None else record.environment.fingerprint,
    }


def _score(score: Score) -> dict[str, Value]:
    low, high = score.ci95 or (None, None)
    return {
        "score": score.name,
        "value": score.value,
        "unit": score.unit,
        "better": score.better,
        "kind": score.kind,
        "stderr": score.stderr,
        "ci95_low": low,
        "ci95_high": high,
        "ci95_half_width": None if low is None or high is None else (high - low) / 2,
        "interval": score.interval,
        "num_samples": score.num_samples,
        "num_reference": score.num_reference,
        "protocol": json.dumps(score.protocol, sort_keys=True),
    }


_WHOLE = {
    "suite_version",
    "seed",
    "num_samples",
    "num_reference",
    "num_parameters",
    "samples_seen",
    "samples_to_quality",
    "network_evaluations",
}
_FLOAT = {"value", "stderr", "ci95_low", "ci95_high", "ci95_half_width"} | (set(_COST) - _WHOLE - {_MACHINE})


def _dtype(name: str) -> str:
    if name in _WHOLE:
        return "Int64"  # whole numbers with gaps
    return "float64" if name in _FLOAT else "object"
