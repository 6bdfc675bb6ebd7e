"""What a gate holds the present code against: what some earlier code counted, scored and measured. Without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, PositiveInt

from genbench.core.bench import Counters, Measure, Variant
from genbench.core.record import Environment, Failure, Score, State
from genbench.core.spec import Cell
from genbench.core.verdict import Gate


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Row(NamedTuple):
    """What two versions have in common: the same subject on the same data."""

    label: str
    dataset: str


class Entry(State):
    """What one gate needs to know of one cell."""

    gate: Gate
    cell: Cell
    variant: Variant = "eager"
    counters: dict[str, Counters] = Field(default_factory=dict)
    measures: dict[str, Measure] = Field(default_factory=dict)
    batch_size: PositiveInt | None = None
    """Of the throughput that was measured."""
    canary_seconds: FiniteFloat | None = None
    """Median time of the fixed workload around the rounds."""
    weights_sha256: str | None = None
    """Of the trained weights that were timed; None: fresh ones."""
    scores: Annotated[tuple[Score, ...], BeforeValidator(_as_tuple)] = ()
    environment: Environment | None = None
    error: Failure | None = None

    @property
    def row(self) -> Row:
        """The row that it belongs to; seeds share one."""
        label = self.cell.label if self.variant == "eager" else f"{self.cell.label} ({self.variant})"
        return Row(label, self.cell.dataset.label)


class NoiseFloor(State):
    """How far a score moves between runs of the same code."""

    label: str
    dataset: str
    score: str
    deviation: FiniteFloat
    """Of one run, pooled over seeds."""
    degrees: PositiveInt
    """Of freedom of the deviation."""
    num_runs: PositiveInt
    across_seeds: bool
    """The runs shared no seed, so what seeds do is part of it."""


class Selected(State):
    """The words that chose the cells; a later gate chooses by the same."""

    suite: str
    tier: str
    models: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Empty: all of the suite."""
    dataset: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"


class Baseline(BaseModel):
    """What `genbench baseline save` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_: Literal["genbench.baseline/1"] = Field(default="genbench.baseline/1", alias="schema")
    genbench_version: str
    created: str
    selected: Selected | None = None
    """How the counted cells were chosen; None when nothing was counted."""
    entries: Annotated[tuple[Entry, ...], BeforeValidator(_as_tuple)]
    noise: Annotated[tuple[NoiseFloor, ...], BeforeValidator(_as_tuple)] = ()

    def of(self, gate: Gate) -> tuple[Entry, ...]:
        """Entries of one gate."""
        return tuple(entry for entry in self.entries if entry.gate == gate)


def by_row(entries: Iterable[Entry]) -> dict[Row, list[Entry]]:
    """Entries of each row, in order."""
    rows: dict[Row, list[Entry]] = {}
    for entry in entries:
        rows.setdefault(entry.row, []).append(entry)
    return rows
