"""What a timed round writes, and what is read off many rounds: states without torch.

A *round* is one fresh process that measures one phase of one subject once. Its raw readings are kept. A *measure* is
what several rounds say of one quantity.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from genbench.core.record import Better, Environment, Failure, Interval, State
from genbench.core.spec import Cell, Spec
from genbench.core.units import kind_on, rate_unit

BENCH_SCHEMA = "genbench.bench/1"
BASELINE_SCHEMA = "genbench.baseline/1"

Phase = Literal["train", "latency", "throughput", "memory", "counters"]
"""What a round measures. `train`: steps; `latency`: one sample at a time; `throughput`: batches of samples;
`memory` and `counters`: passes of their own, in which nothing is timed."""
Variant = Literal["eager", "compile", "cudagraph"]
"""How the model's own network runs; never chosen silently."""
Flag = Literal["throttled", "contended", "host_bound", "warmup_unstable", "canary_drift", "suspicious_fast"]
"""Why a timing deserves less trust. `throttled`: the device lowered its clock; `contended`: another process used it;
`host_bound`: the host kept the device waiting; `warmup_unstable`: still changing when warm-up had to end;
`canary_drift`: a fixed workload took another time after the round than before; `suspicious_fast`: skipped work?"""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A quantity that is read off a clock or a counter."""

    unit: str
    better: Better
    phase: Phase


QUANTITIES: dict[str, Quantity] = {
    "train_images_per_second": Quantity("img/s", "higher", "train"),  # from the loader of the harness, end to end
    "train_compute_images_per_second": Quantity("img/s", "higher", "train"),  # one resident batch, again and again
    "latency_seconds": Quantity("s", "lower", "latency"),  # one sample, a new seed for each
    "sample_images_per_second": Quantity("img/s", "higher", "throughput"),  # at the batch size of the round
}
"""Timed quantities by name; each value of a round is one block's or one request's. Rates are of images: `unit_of`."""


def unit_of(quantity: str, dataset: str) -> str:
    """Unit of a timed quantity on the data that a label names: a rate counts their examples."""
    unit = QUANTITIES[quantity].unit
    return rate_unit(kind_on(dataset)) if unit == rate_unit("image") else unit


class Effort(Spec):
    """How long the clock runs."""

    rounds: PositiveInt
    """Fresh processes for each subject and phase."""
    warmup_calls: PositiveInt = 10
    """Calls before the first reading, at least."""
    warmup_seconds: NonNegativeFloat
    """Seconds of warm-up, at least."""
    max_warmup_seconds: PositiveFloat
    """Warm-up ends here even if readings still change."""
    steady_change: PositiveFloat = 0.02
    """Warm-up ends when the medians of two windows in a row differ by less."""
    block_seconds: PositiveFloat = 0.2
    """Between two synchronisations, at least."""
    min_blocks: PositiveInt = 5
    min_seconds: PositiveFloat
    """Of steady blocks in a round, at least."""
    requests: PositiveInt
    """Single samples whose latency is read in a round, at least."""
    request_seconds: NonNegativeFloat
    """Over which they are spread, at least."""
    canary_seconds: NonNegativeFloat
    """Length of the fixed workload before and after a round; 0 leaves it out."""


EFFORTS: dict[str, Effort] = {
    "smoke": Effort(
        rounds=1,
        warmup_calls=2,
        warmup_seconds=0.0,
        max_warmup_seconds=2.0,
        block_seconds=0.05,
        min_blocks=3,
        min_seconds=0.15,
        requests=5,
        request_seconds=0.0,
        canary_seconds=0.1,
    ),
    "quick": Effort(
        rounds=3,
        warmup_calls=5,
        warmup_seconds=0.5,
        max_warmup_seconds=10.0,
        min_seconds=1.0,
        requests=20,
        request_seconds=1.0,
        canary_seconds=0.5,
    ),
    "standard": Effort(
        rounds=5,
        warmup_seconds=3.0,
        max_warmup_seconds=60.0,
        min_seconds=5.0,
        requests=100,
        request_seconds=10.0,
        canary_seconds=2.0,
    ),
    "paper": Effort(
        rounds=7,
        warmup_seconds=3.0,
        max_warmup_seconds=60.0,
        min_seconds=20.0,
        requests=300,
        request_seconds=60.0,
        canary_seconds=2.0,
    ),
}
"""Efforts by name, shortest first."""


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Floats = Annotated[tuple[FiniteFloat, ...], BeforeValidator(_as_tuple)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Flags = Annotated[tuple[Flag, ...], BeforeValidator(_as_tuple)]


class ColdStart(State):
    """Seconds before anything is steady, phase by phase; never part of a rate."""

    import_seconds: FiniteFloat
    build_seconds: FiniteFloat
    load_seconds: FiniteFloat = 0.0
    """Weights and data onto the device."""
    first_call_seconds: FiniteFloat
    """The first call: kernels loaded and tuned, networks compiled, graphs captured."""
    warmup_seconds: FiniteFloat
    teardown_seconds: FiniteFloat = 0.0


class Machine(State):
    """The machine while a round ran; None where it cannot be read."""

    load_average: FiniteFloat | None = None
    canary_before_seconds: FiniteFloat | None = None
    canary_after_seconds: FiniteFloat | None = None
    clock_mhz: FiniteFloat | None = None
    """Median clock of the device's multiprocessors."""
    temperature_c: FiniteFloat | None = None
    """Highest seen."""
    power_watts: FiniteFloat | None = None
    """Mean."""
    energy_joules: FiniteFloat | None = None
    """Over the steady part of the round."""
    throttled_share: FiniteFloat | None = None
    """Share of readings in which heat or a power brake held the clock down."""
    foreign_processes: int | None = None
    """Other processes seen on the device."""


class Memory(State):
    """Peaks of a pass in which nothing is timed, GiB (2^30 bytes); None where it cannot be read."""

    allocated_gib: FiniteFloat | None = None
    """What tensors need on the device."""
    reserved_gib: FiniteFloat | None = None
    """What the allocator holds on the device."""
    process_gib: FiniteFloat | None = None
    """What the driver counts for the process."""
    host_gib: FiniteFloat
    """Resident memory of the process."""


class Counters(State):
    """What one call does, counted in an untimed pass; the same in every run on the same versions."""

    flops: int
    """Multiply-adds count twice; of the operators that can be counted."""
    uncounted: Texts = ()
    """Operators that do arithmetic and were not counted."""
    operators: int
    """Operator calls that reach the dispatcher."""
    bytes_allocated: int
    """Bytes of all tensors that operators made."""
    parameters: int
    network_evaluations: int | None = None
    """For one sample; None for models that are not iterative."""


class Round(State):
    """One phase of one subject, measured once in a process of its own."""

    label: str
    """The subject with its settings."""
    phase: Phase
    variant: Variant = "eager"
    index: int = Field(ge=0)
    """Which repetition; rounds of the same index are neighbours in time."""
    batch_size: int | None = None
    """Examples in a call: of a training step, or of a batch of samples."""
    values: dict[str, Floats] = Field(default_factory=dict)
    """Raw readings of each quantity, in the order in which they were taken."""
    in_turns: bool = False
    """Whether another round took its readings alternately with these: reading i of both are neighbours in time."""
    cold: ColdStart | None = None
    machine: Machine = Machine()
    memory: Memory | None = None
    peaks: dict[str, Memory] = Field(default_factory=dict)
    """Of a `memory` round, which has no single call: for `train` and `sample`."""
    counters: dict[str, Counters] = Field(default_factory=dict)
    """For `train` (one round of all players) and `sample` (one sample)."""
    flops_per_image: FiniteFloat | None = None
    """Of training, over all players and phases in their shares; only of a `counters` round."""
    images: int | None = None
    """Examples trained on or drawn while `machine` was read: its energy is theirs."""
    sweep: bool = False
    """Whether it is a short point of a batch-size sweep rather than a measurement of its own."""
    flags: Flags = ()
    audit: dict[str, bool] = Field(default_factory=dict)
    """Proofs that the timed run did the work, by name; empty without `--audit`."""
    weights_sha256: str | None = None
    """Of the file of trained weights; None: fresh ones."""
    samples_sha256: str | None = None
    """Of the samples of two seeds, the same two in every round of a cell; only of a `latency` round with `--audit`."""
    environment: Environment | None = None
    error: Failure | None = None
    """Why there are no values: running out of memory is a result too."""
    seconds: FiniteFloat = 0.0
    """Wall-clock of the whole process."""


class Measure(State):
    """What the rounds say of one quantity."""

    name: str
    unit: str
    better: Better
    value: FiniteFloat
    """Geometric mean over rounds of each round's median."""
    ci95: Interval | None = None
    """t-interval on the log scale over rounds; None for a single round."""
    medians: Floats
    """Median of each round."""
    interquartile: FiniteFloat
    """Spread of the readings within rounds, relative to their median."""
    outliers: int
    """Readings beyond 1.5 interquartile ranges; none is removed."""
    autocorrelation: FiniteFloat | None = None
    """Of neighbouring readings within a round, mean over rounds."""
    quantiles: dict[str, tuple[FiniteFloat, FiniteFloat | None, FiniteFloat | None]] = Field(default_factory=dict)
    """`p50`, `p90`, `p99` of all readings, each with its interval from order statistics (None: too few readings)."""


class BatchPoint(State):
    """Throughput at one batch size; running out of memory is a point as well."""

    batch_size: int
    measure: Measure | None
    memory: Memory | None = None
    energy_joules_per_image: FiniteFloat | None = None
    error: Failure | None = None


class Bench(State):
    """Everything measured of one subject in one variant."""

    cell: Cell
    variant: Variant = "eager"
    measures: dict[str, Measure] = Field(default_factory=dict)
    curve: Annotated[tuple[BatchPoint, ...], BeforeValidator(_as_tuple)] = ()
    """Throughput over batch size."""
    best_batch_size: int | None = None
    cold: ColdStart | None = None
    """Medians over rounds."""
    memory: dict[str, Memory] = Field(default_factory=dict)
    """For `train` and `sample`."""
    counters: dict[str, Counters] = Field(default_factory=dict)
    data_wait: FiniteFloat | None = None
    """Share of training time spent waiting for data: 1 - end-to-end rate / compute rate."""
    seconds_per_evaluation: FiniteFloat | None = None
    """Latency over network evaluations; None for models that are not iterative."""
    flops_utilisation: FiniteFloat | None = None
    """Share of the device's peak that training reaches; None where the peak is not known."""
    energy_joules_per_image: FiniteFloat | None = None
    flags: Flags = ()
    audit: dict[str, bool] = Field(default_factory=dict)
    weights_sha256: str | None = None
    """Of the file of trained weights; None: fresh ones."""
    error: Failure | None = None

    @property
    def label(self) -> str:
        """The row's name; a variant other than `eager` is part of it."""
        return self.cell.label if self.variant == "eager" else f"{self.cell.label} ({self.variant})"


class BenchFile(BaseModel):
    """What `genbench bench --json` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_: Literal["genbench.bench/1"] = Field(default="genbench.bench/1", alias="schema")
    genbench_version: str
    created: str
    environment: Environment
    results: Annotated[tuple[Bench, ...], BeforeValidator(_as_tuple)]
    rounds: Annotated[tuple[Round, ...], BeforeValidator(_as_tuple)] = ()
