"""What a leaderboard is made of: columns, rows, cells, footnotes; every renderer reads only these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genbench.core.record import Better, Kind
from genbench.core.spec import Scalar

INTERVAL = "[a, b]"
"""Sign of an interval in the legend, for formats that show them."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: a score, or a cost."""

    name: str
    """Name of the score, or of the field of the record."""
    label: str
    unit: str
    better: Better | None
    """None where no direction is better."""
    arrow: str
    """`↓`, `↑` or empty."""
    quality: bool
    """False for costs."""
    ranked: bool
    """Whether its numbers are put into tiers."""
    num_samples: int | None = None
    num_reference: int | None = None
    protocol: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def header(self) -> str:
        """Label, unit and arrow in one line."""
        unit = f"({self.unit})" if self.unit and self.unit != self.label else ""
        return " ".join(part for part in (self.label, unit, self.arrow) if part)


@dataclass(frozen=True, kw_only=True)
class CellValue:
    """One number of a row with everything that is printed around it; texts are not yet escaped."""

    status: Literal["value", "missing", "failed"]
    value: str
    """Three significant figures, or `–`, or `failed`."""  # noqa: RUF001
    mark: str = ""
    """`≤` or `≥` for bounds, `≈` for estimates, empty for exact numbers."""
    spread: str = ""
    """`± 0.12`: standard deviation over three seeds or more."""
    interval: str = ""
    """`[3.10, 3.32]`: the 95 % interval, for formats with room."""
    bold: bool = False
    """The best model, by more than the noise."""
    tier: int | None = None
    """Models of one tier cannot be told apart at 95 %; None where nothing is ranked."""
    notes: tuple[int, ...] = ()
    """Indices into `Leaderboard.footnotes`."""
    number: float | None = None
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    kind: Kind | None = None
    num_samples: int | None = None

    @property
    def text(self) -> str:
        """Mark, value and spread."""
        return " ".join(part for part in (self.mark, self.value, self.spread) if part)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model or control, merged over its seeds."""

    label: str
    role: Literal["model", "control"]
    paradigm: str
    seeds: tuple[int, ...]
    """Seeds behind the numbers."""
    failed_seeds: tuple[int, ...]
    samples_seen: int
    """Training images, zero for controls."""
    tier: int | None
    """Tier in the column by which the table is sorted."""
    cells: tuple[CellValue, ...]
    """One for each column."""
    notes: tuple[int, ...] = ()
    """Indices into `Leaderboard.footnotes`, printed beside the label."""


@dataclass(frozen=True)
class Legend:
    """What a sign in the table means."""

    sign: str
    """The sign itself, or `best`, which each format shows in its own way."""
    meaning: str


@dataclass(frozen=True)
class Finding:
    """A control out of order in one metric: the metric, or the suite, cannot be trusted there."""

    metric: str
    control: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Rows that may be ranked together."""

    suite: str
    suite_version: int
    tier: str
    dataset: str
    features: str
    sort: str
    """Name of the column by which rows are sorted; empty where nothing was measured."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    legend: tuple[Legend, ...]
    findings: tuple[Finding, ...]
    split: tuple[str, ...]
    """Why these rows stand apart from others of the same suite, tier and dataset."""
    remarks: tuple[str, ...] = ()
    """What else a reader must know, for example metrics that apply to no row."""

    @property
    def title(self) -> str:
        """Suite, version, tier and dataset."""
        return f"{self.suite} v{self.suite_version} · {self.tier} · {self.dataset}"

    @property
    def counts(self) -> tuple[str, ...]:
        """Sample counts of the scores, one text for each distinct pair of counts."""
        by_counts: dict[tuple[int, int], list[str]] = {}
        for column in self.columns:
            if column.num_samples is not None:
                by_counts.setdefault((column.num_samples, column.num_reference or 0), []).append(column.label)
        return tuple(_count_text(names, *pair) for pair, names in by_counts.items())


def letter(index: int) -> str:
    """Letter of a footnote: a .. z, aa, ab, ..."""
    head, last = divmod(index, 26)
    return (letter(head - 1) if head else "") + chr(ord("a") + last)


def letters(notes: tuple[int, ...]) -> str:
    """Letters of several footnotes, separated by commas; empty for none."""
    return ",".join(letter(note) for note in notes)


def _count_text(names: list[str], num_samples: int, num_reference: int) -> str:
    against = f" against {num_reference} references" if num_reference else ""
    return f"{', '.join(names)}: {num_samples} examples{against}"
