"""Records of one table gathered into rows: one row for each subject, merged over seeds."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from genbench.core.bench import Bench, BenchFile
from genbench.core.record import Environment, Failure, Rate, Record, TimeToQuality
from genbench.report._givers import given_by, metric_of
from genbench.report._noise import Z95, Estimate, merge, merge_rates, merge_scores, merge_times

_SEED_FREE = {"seed", "weights_from", "suite", "suite_version", "tier", "dataset"}
"""Fields of a cell in which the seeds of one row, or all rows of one table, agree or do not matter."""
_EFFORT = ("seeds", "deadline_seconds", "timing")
"""Parts of the budget that change no score."""
_MESSAGE_LENGTH = 200
UNKNOWN_MACHINE = "a machine that was not recorded"


@dataclass(frozen=True)
class Subject:
    """The records of one row: equal in everything but the seed."""

    label: str
    records: tuple[Record, ...]
    """Finished ones, by seed."""
    failed: tuple[Record, ...]
    replaced: tuple[int, ...] = ()
    """Seeds of which an older record exists too."""
    speeds: Bench | None = None
    """What timed rounds say of it; None where only the cells' own clocks do."""
    speeds_on: str = ""
    """Fingerprint of the machine of the rounds."""

    @property
    def any(self) -> Record:
        """A record of the row, for what all of them share."""
        return (self.records or self.failed)[0]

    @property
    def is_model(self) -> bool:
        """False for controls."""
        return self.any.cell.role == "model"

    def score(self, name: str) -> Estimate | None:
        """A score merged over seeds, None where no seed has it."""
        scores = [score for record in self.records if (score := record.score(name)) is not None]
        return merge_scores(scores) if scores else None


def subjects(records: Sequence[Record], speeds: Sequence[BenchFile] = ()) -> list[Subject]:
    """Rows in the order of their labels; rows that would share a label say how they differ.

    Args:
        records: of one table.
        speeds: timed rounds of any cells; the last file that has a cell counts.
    """
    timed = {row.cell.key: (row, file) for file in speeds for row in file.results if row.variant == "eager"}
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(json.dumps(_identity(record), sort_keys=True), []).append(record)
    by_label: dict[tuple[str, str], list[list[Record]]] = {}
    for identity in sorted(rows):
        cell = rows[identity][0].cell
        by_label.setdefault((cell.role, cell.label), []).append(rows[identity])
    found = []
    for (_, label), alike in sorted(by_label.items()):
        names = _told_apart(label, [_identity(row[0]) for row in alike])
        found += [_with_speeds(_subject(name, row), timed) for name, row in zip(names, alike, strict=True)]
    return found


def _with_speeds(row: Subject, timed: Mapping[str, tuple[Bench, BenchFile]]) -> Subject:
    own = [timed[record.key] for record in row.records if record.key in timed]
    if not own:
        return row
    bench, file = own[0]
    return dataclasses.replace(row, speeds=bench, speeds_on=machine(file.environment))


def home_machine(rows: Sequence[Subject]) -> str:
    """Fingerprint of the machine that made most of the model records; the only one whose speeds are ranked."""
    machines = [machine(record.environment) for row in rows if row.is_model for record in row.records]
    counts = collections.Counter(machines)
    return min(counts, key=lambda name: (-counts[name], name), default=UNKNOWN_MACHINE)


def machine(environment: Environment | None) -> str:
    """Fingerprint of an environment, or the words for one that is missing."""
    return UNKNOWN_MACHINE if environment is None else environment.fingerprint


def timed_on(row: Subject, home: str) -> str:
    """The machine whose timings stand in the row: `home` if it made any of them, else the row's own."""
    machines = [machine(record.environment) for record in row.records]
    return home if home in machines or not machines else min(machines)


def cost(row: Subject, name: str, on: str) -> Estimate | None:
    """A cost over the seeds made on one machine, None where it was not measured; timed rounds come before cells."""
    measure = None if row.speeds is None or row.speeds_on != on else row.speeds.measures.get(name)
    if measure is not None:
        scale = SCALES.get(name, 1.0)
        ci95 = None if measure.ci95 is None else (scale * measure.ci95[0], scale * measure.ci95[1])
        return Estimate(scale * measure.value, None if ci95 is None else (ci95[1] - ci95[0]) / (2 * Z95), ci95, None)
    records = [record for record in row.records if machine(record.environment) == on]
    if name in RATES:
        rates = [rate for record in records if (rate := RATES[name](record)) is not None]
        return merge_rates(rates, scale=SCALES.get(name, 1.0)) if rates else None
    if name in TIMES:
        times = [TIMES[name](found) for record in records if (found := record.timing.time_to_quality) is not None]
        return merge_times(times) if times else None
    values = [value for record in records if (value := VALUES[name](record)) is not None]
    return merge(values, [None] * len(values)) if values else None


RATES: dict[str, Callable[[Record], Rate | None]] = {
    "train_images_per_second": lambda record: record.timing.train_images_per_second,
    "sample_images_per_second": lambda record: record.timing.sample_images_per_second,
    "latency_seconds": lambda record: record.timing.latency_seconds,
    "real_time_factor": lambda record: record.timing.real_time_factor,
}
SCALES = {"latency_seconds": 1e3}
"""From the unit of the clock to that of the table."""
TIMES: dict[str, Callable[[TimeToQuality], tuple[float | None, float]]] = {
    "time_to_quality": lambda found: (found.seconds, found.budget_seconds),
    "samples_to_quality": lambda found: (found.samples_seen, found.budget_samples),
}
"""What it took to a target, None for a miss, and the budget."""
VALUES: dict[str, Callable[[Record], float | None]] = {
    "num_parameters": lambda record: None if record.num_parameters is None else record.num_parameters / 1e6,
    "samples_seen": lambda record: record.cell.samples_seen if _trained(record) else None,
    "network_evaluations": lambda record: record.timing.network_evaluations,
    "train_seconds": lambda record: record.timing.train_seconds,
    "peak_memory_gib": lambda record: record.timing.peak_memory_gib,
}


def one_line(text: str) -> str:
    """Text without line breaks and control characters, which could redraw a terminal or reverse a line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def failure_text(error: Failure | None) -> str:
    """`phase: type: message`, in one line."""
    if error is None:
        return "failed without a reason"
    message = one_line(error.message)
    shown = message if len(message) <= _MESSAGE_LENGTH else message[: _MESSAGE_LENGTH - 3] + "..."
    return f"{one_line(error.phase)}: {one_line(error.type)}: {shown}"


def why_missing(row: Subject, score: str, rows: Sequence[Subject]) -> str:
    """Why a finished row has no such score, in the words of its records.

    `Record.skipped` is keyed by metric, and one metric may give several scores under other names. What a metric of ours
    gives stands in its source; the metric of another's score is one that no row with that score has skipped.
    """
    skipped = {name: reason for record in row.records for name, reason in record.skipped.items()}
    if score in skipped:
        return skipped[score]
    asked = {ref.label: ref.name for record in row.records for ref in record.cell.metrics}
    giver = metric_of(score, asked.values())
    if giver is not None:
        labels = [label for label, name in asked.items() if name == giver]
        reasons = [skipped[label] for label in labels if label in skipped]
        return "; ".join(sorted({*reasons})) or f"`{labels[0]}` was computed and gave none"
    holders = [record for other in rows for record in other.records if record.score(score) is not None]
    ruled_out = {name for record in holders for name in record.skipped} | {
        label for label, name in asked.items() if given_by(name)
    }
    reasons = sorted({reason for name, reason in skipped.items() if name not in ruled_out})
    return "; ".join(reasons) or "not among the metrics of this run"


def _identity(record: Record) -> dict[str, object]:
    cell = record.cell.model_dump(mode="json", exclude=_SEED_FREE)
    protocol = {key: value for key, value in cell.pop("protocol").items() if key not in _EFFORT}
    return {**cell, **{f"protocol.{key}": value for key, value in protocol.items()}}


def _told_apart(label: str, identities: Sequence[dict[str, object]]) -> list[str]:
    """Labels of rows that share one, each with the fields in which they differ."""
    keys = [key for key in identities[0] if any(other[key] != identities[0][key] for other in identities)]
    texts = [", ".join(f"{key}={_short(identity[key])}" for key in keys) for identity in identities]
    return [f"{label} ({text})" if text else label for text in texts]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 12 else text[:8]


def _subject(label: str, records: Sequence[Record]) -> Subject:
    """One record for each seed: a finished one before a failed one, then the one that ended last."""
    latest: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: (record.status == "ok", record.ended, record.key)):
        latest[record.cell.seed] = record
    ordered = [latest[seed] for seed in sorted(latest)]
    counts = collections.Counter(record.cell.seed for record in records)
    return Subject(
        label=one_line(label),
        records=tuple(record for record in ordered if record.status == "ok"),
        failed=tuple(record for record in ordered if record.status == "failed"),
        replaced=tuple(sorted(seed for seed, number in counts.items() if number > 1)),
    )


def _trained(record: Record) -> bool:
    """Whether weights were trained for a row, in its own cell or in the one that it borrows from."""
    return record.timing.train_seconds is not None or record.cell.weights_from is not None
