"""Which records may share a table: same suite, version, tier, dataset, and equal protocols."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from genbench.core.record import Record, Score
from genbench.core.spec import Scalar

_COUNTS = ("num_samples", "num_reference", "num_likelihood", "train_size", "precision")
"""Parts of a tier's budget that can move a score without showing in the row's label."""

_LIKELIHOODS = frozenset({"bits_per_dim", "nll", "kl"})
"""Scores whose estimator is the model's own: the mark of its kind stands at the number, and no table is split."""

Aspects = dict[str, dict[str, str]]
"""What is compared (a score, or the budget) -> its protocol, key by key."""


@dataclass
class Group:
    """Records of one table, and why they stand apart."""

    records: list[Record]
    aspects: Aspects
    split: list[str] = field(default_factory=list)


def grouped(records: Sequence[Record]) -> list[Group]:
    """Split records into tables; the same tables in the same order whatever the order of the records."""
    by_table: dict[tuple[str, int, str, str], list[Record]] = {}
    for record in sorted(newest(records), key=_canonical):
        cell = record.cell
        by_table.setdefault((cell.suite, cell.suite_version, cell.tier, cell.dataset.label), []).append(record)
    return [group for table in sorted(by_table) for group in _split(by_table[table])]


def newest(records: Iterable[Record]) -> list[Record]:
    """One record for each key: the one that succeeded, then the one that ended last."""
    kept: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.status == "ok", record.ended, record.model_dump_json())):
        kept[record.key] = record
    return list(kept.values())


def _canonical(record: Record) -> tuple[int, str, int, str]:
    return -len(record.scores), record.cell.label, record.cell.seed, record.key


def _split(records: Sequence[Record]) -> list[Group]:
    """Put each record into the first table whose protocols it does not contradict."""
    groups: list[Group] = []
    for record in records:
        aspects = _aspects(record)
        fitting = [group for group in groups if not _conflicts(group.aspects, aspects)]
        if not fitting:
            groups.append(Group([record], aspects))
            continue
        home = next((group for group in fitting if _holds_seed_of(group, record)), fitting[0])
        home.records.append(record)
        home.aspects |= aspects
    groups.sort(key=lambda group: -len(group.records))
    for group in groups:
        group.split = [text for other in groups if other is not group for text in _why(group.aspects, other.aspects)]
        group.split = list(dict.fromkeys(group.split))
    return groups


def _holds_seed_of(group: Group, record: Record) -> bool:
    return any(record.cell.label == other.cell.label and record.cell.role == other.cell.role for other in group.records)


def _aspects(record: Record) -> Aspects:
    budget = {name: str(value) for name, value in record.cell.protocol.model_dump(include=set(_COUNTS)).items()}
    found: Aspects = {"budget": budget, "features": {"extractor": record.cell.features.label}}
    for score in record.scores:
        settings = {key: json.dumps(value) for key, value in shared_protocol(score).items()}
        fixed = {"unit": score.unit, "better": score.better, "num_reference": str(score.num_reference)}
        found[f"`{score.name}`"] = {**settings, **fixed}
    return found


def shared_protocol(score: Score) -> dict[str, Scalar]:
    """What all scores of a column must share: the protocol, less the estimator of a likelihood."""
    own = {"estimator"} if score.name in _LIKELIHOODS else set()
    return {key: value for key, value in score.protocol.items() if key not in own}


def _conflicts(a: Aspects, b: Aspects) -> list[str]:
    return [name for name in a if name in b and a[name] != b[name]]


def _why(here: Aspects, there: Aspects) -> list[str]:
    texts = []
    for name in _conflicts(here, there):
        keys = sorted(key for key in {*here[name], *there[name]} if here[name].get(key) != there[name].get(key))
        differing = (f"{key}={_short(here[name].get(key))} here, {_short(there[name].get(key))} there" for key in keys)
        texts.append(f"{name} was made by another protocol: {'; '.join(differing)}")
    return texts


def _short(value: str | None) -> str:
    """A protocol value that fits in a sentence; digests are cut to their first figures."""
    if value is None:
        return "absent"
    bare = value.strip('"')
    return bare if len(bare) <= 24 else f"{bare[:12]}..."
