"""Columns of a table: scores in the order of the suite's metrics, then costs."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import replace

from genbench.core.errors import UnknownName
from genbench.core.record import Better, Record, Score
from genbench.core.units import kind_on, rate_unit
from genbench.report._givers import metric_of
from genbench.report._groups import shared_protocol
from genbench.report._rows import Subject, cost, timed_on
from genbench.report._table import Column

ARROWS: dict[Better, str] = {"lower": "↓", "higher": "↑"}
_LABELS = {"bits_per_dim": "bits/dim", "kid": "KID", "inception_score": "IS"}
_FULL_FID = 50_000  # with fewer samples the label says how many: FID falls as samples are added


def cost_column(name: str, label: str, unit: str, better: Better | None, *, ranked: bool = False) -> Column:
    """A column of costs."""
    arrow = "" if better is None else ARROWS[better]
    return Column(name=name, label=label, unit=unit, better=better, arrow=arrow, quality=False, ranked=ranked)


_RATE = rate_unit("image")  # of a table of other data, the unit is theirs
COSTS = (
    cost_column("num_parameters", "params", "M", None),
    cost_column("samples_seen", "samples seen", "", None),
    cost_column("train_images_per_second", "train", _RATE, "higher", ranked=True),
    cost_column("sample_images_per_second", "sample", _RATE, "higher", ranked=True),
    cost_column("latency_seconds", "latency", "ms", "lower", ranked=True),
    cost_column("real_time_factor", "real-time factor", "", "lower", ranked=True),
    cost_column("network_evaluations", "NFE", "", "lower"),
    cost_column("train_seconds", "train", "s", "lower"),
    cost_column("time_to_quality", "time to target", "s", "lower"),
    cost_column("samples_to_quality", "samples to target", "", "lower"),
    cost_column("peak_memory_gib", "peak", "GiB", "lower"),
)
MACHINE_COSTS = frozenset(
    {
        "train_images_per_second",
        "sample_images_per_second",
        "latency_seconds",
        "real_time_factor",
        "train_seconds",
        "time_to_quality",
        "peak_memory_gib",
    },
)
"""Costs that mean nothing beside those of another machine."""


def columns_of(rows: Sequence[Subject], home: str) -> tuple[Column, ...]:
    """Every column with a number in it; where nothing was scored, the metrics that were asked for."""
    records = [record for row in rows for record in row.records]
    quality = [_quality(name, records) for name in _score_order(records)] or _asked(rows)
    unit = rate_unit(kind_on(rows[0].any.cell.dataset.label)) if rows else ""
    every = [replace(c, unit=unit) if c.unit == _RATE else c for c in COSTS]
    costs = [c for c in every if any(cost(row, c.name, timed_on(row, home)) is not None for row in rows)]
    return (*quality, *costs)


def chosen(names: Sequence[str], known: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Names of columns in the order in which they were asked for, each once.

    Args:
        names: of columns, or of metrics, which stand for all the scores that they give.
        known: columns that there are.
        metrics: registered names of the metrics behind them.

    Raises:
        UnknownName: one is neither; the hint lists all columns.
    """
    found: dict[str, None] = {}
    for name in names:
        given = [name] if name in known else [score for score in known if metric_of(score, metrics) == name]
        if not given:
            raise UnknownName(f"no column `{name}`", hint=f"columns: {', '.join(known)}")
        found |= dict.fromkeys(given)
    return list(found)


def usual_count(scores: Sequence[Score]) -> int:
    """The sample count of most of the scores; the larger one where two are as frequent."""
    counts = collections.Counter(score.num_samples for score in scores)
    return max(counts, key=lambda number: (counts[number], number))


def _score_order(records: Sequence[Record]) -> list[str]:
    """Names of all scores: each record lists them in the order of the suite's metrics, some with gaps."""
    order: list[str] = []
    for names in sorted(
        ([s.name for s in record.scores] for record in records), key=lambda names: (-len(names), names)
    ):
        for index, name in enumerate(names):
            if name not in order:
                order.insert(order.index(names[index - 1]) + 1 if index else 0, name)
    return order


def _quality(name: str, records: Sequence[Record]) -> Column:
    scores = [score for record in records if (score := record.score(name)) is not None]
    first, num_samples = scores[0], usual_count(scores)
    return Column(
        name=name,
        label=_label(name, num_samples),
        unit=first.unit,
        better=first.better,
        arrow=ARROWS[first.better],
        quality=True,
        ranked=True,
        num_samples=num_samples,
        num_reference=first.num_reference,
        protocol=shared_protocol(first),
    )


def _asked(rows: Sequence[Subject]) -> list[Column]:
    names = dict.fromkeys(metric.label for row in rows for metric in row.any.cell.metrics)
    return [Column(name=name, label=name, unit="", better=None, arrow="", quality=True, ranked=False) for name in names]


def _label(name: str, num_samples: int) -> str:
    if name == "fid" and num_samples < _FULL_FID:
        return f"FID-{num_samples / 1000:.0f}k" if num_samples >= 1000 else f"FID-{num_samples}"
    return "FID" if name == "fid" else _LABELS.get(name, name)
