"""What the machine writes: scores, timings, the environment, and the record of one cell."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

from genbench.core.spec import Cell, Scalar, Suite

RECORD_SCHEMA = "genbench.record/1"

Better = Literal["higher", "lower"]
Kind = Literal["exact", "dequantised", "bound", "estimate"]
"""What a number is. `exact`: the quantity itself; `dequantised`: exact for noised data, hence a
bound for integers; `bound`: never better than the truth in expectation; `estimate`: neither."""


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class State(BaseModel):
    """A frozen type that the machine writes and reads back; NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Interval = Annotated[tuple[FiniteFloat, FiniteFloat], BeforeValidator(_as_tuple)]


class Score(State):
    """One number with its meaning: unit, direction, kind, uncertainty, counts and protocol."""

    name: str
    value: FiniteFloat
    unit: str
    """Empty for a plain distance or share."""
    better: Better
    kind: Kind = "exact"
    stderr: FiniteFloat | None = None
    """Standard error of the value; None when the score has no spread to give."""
    ci95: Interval | None = None
    interval: str = "none"
    """How the uncertainty was made, for example `bootstrap over samples, 200 draws`."""
    num_samples: int = Field(ge=0)
    num_reference: int = Field(default=0, ge=0)
    protocol: dict[str, Scalar] = {}
    """Whatever two scores must share to be ranked together: extractor and its hash, resize, k, ..."""


class Rate(State):
    """A repeated measurement of a speed or a duration; raw values are kept."""

    median: FiniteFloat
    p10: FiniteFloat
    p90: FiniteFloat
    unit: str
    raw: Annotated[tuple[FiniteFloat, ...], BeforeValidator(_as_tuple)]


class Look(State):
    """How good a model was in the middle of its training."""

    samples_seen: int
    seconds: FiniteFloat
    """Of training so far; the clock stands while a model is looked at."""
    value: FiniteFloat | None
    """None where the samples or the score broke down."""


class TimeToQuality(State):
    """How long a training took to a target, with the whole curve."""

    score: str
    unit: str
    better: Better
    target: FiniteFloat
    num_samples: int
    """Behind each look."""
    every: int
    """Training examples between two looks."""
    protocol: dict[str, Scalar] = {}
    looks: Annotated[tuple[Look, ...], BeforeValidator(_as_tuple)]
    """In order; the last one is of the finished model."""
    seconds: FiniteFloat | None
    """Of training up to the second of the first two looks in a row that met the target; None where none did."""
    samples_seen: int | None
    """Training examples up to that look."""
    budget_seconds: FiniteFloat
    """Of the whole training: a miss took longer than this."""
    budget_samples: int


class Timing(State):
    """What a cell cost. Seconds are wall-clock; None means that the phase did not run."""

    phases: dict[str, FiniteFloat] = {}
    """Seconds of each phase of the cell: data, build, train, sample, score."""
    train_seconds: FiniteFloat | None = None
    train_images_per_second: Rate | None = None
    """Training examples per second over all players, in blocks after warm-up."""
    sample_images_per_second: Rate | None = None
    latency_seconds: Rate | None = None
    """One sample at a time, a new seed for each request."""
    real_time_factor: Rate | None = None
    """Seconds that one sample takes, drawn alone, over the seconds that it lasts: below 1 it is made faster than it
    is heard. None for data without a duration."""
    network_evaluations: int | None = None
    """Network evaluations for one sample; None for models that are not iterative."""
    peak_memory_gib: FiniteFloat | None = None
    """Peak device memory (CUDA) or peak resident memory of the process (CPU)."""
    time_to_quality: TimeToQuality | None = None
    """None where the tier names no target, or where it does not apply to the row."""


class Environment(State):
    """Where a record was made; speeds are compared only between equal fingerprints."""

    device: str
    """Name of the accelerator, or of the processor on a CPU."""
    platform: str
    python: str
    torch: str
    packages: dict[str, str]
    threads: int
    load_average: FiniteFloat | None = None
    """Processes ready to run, one-minute mean, when the cell began."""
    processors: int | None = None
    """That the process may use; None in records of older versions."""
    commit: str | None = None
    dirty: bool | None = None

    @property
    def fingerprint(self) -> str:
        """What two timings must share to be compared."""
        return " / ".join([self.device, self.platform, f"torch {self.torch}", f"{self.threads} threads"])


class Failure(State):
    """Why a cell has no scores."""

    phase: str
    type: str
    message: str
    hint: str | None = None
    log: str | None = None
    """Path of the log, relative to the run folder."""


class Record(State):
    """Everything known of one cell: written once, never edited."""

    schema_: Literal["genbench.record/1"] = Field(default="genbench.record/1", alias="schema")
    key: str
    cell: Cell
    status: Literal["ok", "failed"]
    scores: Annotated[tuple[Score, ...], BeforeValidator(_as_tuple)] = ()
    skipped: dict[str, str] = {}
    """Metric -> why it does not apply to this cell."""
    flags: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """What is odd about the samples though it breaks no rule: copies of each other, blank pictures."""
    timing: Timing = Timing()
    environment: Environment | None = None
    num_parameters: int | None = None
    paradigm: str = ""
    source: str = ""
    """Citation of the subject: the first lines of its module."""
    error: Failure | None = None
    started: str
    ended: str

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    def score(self, name: str) -> Score | None:
        """The score of that name, None when it was skipped."""
        return next((score for score in self.scores if score.name == name), None)


def json_schemas() -> dict[str, dict[str, object]]:
    """JSON Schema of every type that is written to or read from a file."""
    kinds: tuple[type[BaseModel], ...] = (Suite, Cell, Record, Score, Timing, Environment)
    return {kind.__name__: kind.model_json_schema() for kind in kinds}
