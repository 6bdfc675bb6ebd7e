"""What a person writes: references to named things, tiers, suites, and the cells they expand to."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, PositiveFloat, PositiveInt

from genbench.core.errors import SettingError

Scalar = bool | int | float | str
SUITE_SCHEMA = "genbench.suite/1"
_REF = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<settings>[^\[\]]*)\])?")


class Spec(BaseModel):
    """A frozen, strict type: unknown keys and wrong types are errors, never conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Ref(Spec):
    """A named thing with settings: `vae[latent_dim=8,preset=small]` or `folder:PATH[resolution=32]`."""

    name: str = Field(min_length=1)
    argument: str | None = None
    """What follows the first colon (a path or a hub name); None for things without one."""
    preset: str | None = None
    """Named configuration to start from; None takes the tier's."""
    config: dict[str, Scalar] = {}

    @property
    def label(self) -> str:
        """The name as people write it, with only the settings that were given."""
        head = self.name if self.argument is None else f"{self.name}:{self.argument}"
        preset = {} if self.preset is None else {"preset": self.preset}
        parts = [f"{key}={_show(value)}" for key, value in {**preset, **self.config}.items()]
        return f"{head}[{','.join(parts)}]" if parts else head

    def may_mean(self, row: Ref) -> bool:
        """Whether this is a short name of a row: of the same thing, with no setting that the row has not.

        Args:
            row: with all its settings.
        """
        short = {"argument": self.argument, "preset": self.preset}
        agree = all(value in {None, getattr(row, key)} for key, value in short.items())
        return self.name == row.name and agree and self.config.items() <= row.config.items()


def parse_ref(text: str) -> Ref:
    """Read `name`, `name[key=value,...]` or `name:argument[key=value,...]`.

    Raises:
        SettingError: the text has another form, or gives a setting twice.
    """
    match = _REF.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"`{text}` is not `name` or `name[key=value,...]`")
    settings: dict[str, Scalar] = {}
    parts = [part for part in (match["settings"] or "").split(",") if part]
    for index, part in enumerate(parts):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            hint = None if equals or not index else _after_comma(parts, index)
            raise SettingError(f"`{part}` in `{text}` is not `key=value`", hint=hint)
        if key in settings:
            raise SettingError(f"`{text}` gives `{key}` twice", hint="keep the one that is meant")
        settings[key] = _scalar(value)
    preset = settings.pop("preset", None)
    name, colon, argument = match["name"].partition(":")
    return Ref(
        name=name,
        argument=argument if colon else None,
        preset=None if preset is None else str(preset),
        config=settings,
    )


def _after_comma(parts: list[str], index: int) -> str:
    """What to write in place of `levels=8,6,5`, whose second part has no `=`."""
    apart = "commas separate settings"
    key, equals, first = (piece.strip() for piece in parts[index - 1].partition("="))
    others = [part.strip() for part in itertools.takewhile(lambda part: "=" not in part, parts[index:])]
    if equals and all(number.isdecimal() for number in (first, *others)):
        return f"{apart}; a list of numbers is written with x: `{key}={'x'.join((first, *others))}`"
    return f"{apart}, each of which is `key=value`"


def _as_ref(value: object) -> object:
    return parse_ref(value) if isinstance(value, str) else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


RefField = Annotated[Ref, BeforeValidator(_as_ref)]


class ModelEntry(Spec):
    """A model's row in a suite: the model, and where it must differ from the tier's budget."""

    use: RefField
    samples_seen: dict[str, PositiveInt] = {}
    """Training images per tier where the tier's own number would be unfair; shown in the table."""


def _as_entry(value: object) -> object:
    return {"use": value} if isinstance(value, str) else value


class TimingEffort(Spec):
    """How long the clock of a cell runs: in its training, and while it draws its samples."""

    warmup_steps: PositiveInt = 5
    min_block_seconds: PositiveFloat = 0.2
    latency_requests: int = Field(default=5, ge=0)


class Target(Spec):
    """A score that a training is to reach, and how often it is looked at: what stands behind time to quality."""

    metric: RefField
    score: str | None = None
    """Name of the score, where the metric gives several; None takes its first."""
    value: FiniteFloat
    every: PositiveInt
    """Training examples between two looks. They come at fixed numbers of examples and not of seconds, so that faster
    code gets no more chances than slower."""
    num_samples: PositiveInt
    """Drawn for each look."""


class Tier(Spec):
    """One budget of a suite: what is trained on, for how long, and how much is drawn and scored."""

    dataset: RefField
    preset: str
    """Preset of every model that names none."""
    samples_seen: PositiveInt
    """Training examples shown to each model, over all its phases and players."""
    num_samples: PositiveInt
    num_reference: PositiveInt
    """Real examples behind the metrics that need features rather than moments, and behind those of latents (at most
    10,000)."""
    num_likelihood: PositiveInt
    train_size: PositiveInt = 50_000
    """Distinct training examples, at most; an infinite dataset is cut to this many."""
    seeds: Annotated[tuple[int, ...], BeforeValidator(_as_tuple)] = (0,)
    precision: Literal["float32", "bfloat16"] = "float32"
    deadline_seconds: PositiveFloat = 3600.0
    timing: TimingEffort = TimingEffort()
    target: Target | None = None
    """None: trainings are not looked at before their end."""
    rounds: Literal["smoke", "quick", "standard", "paper"] | None = None
    """Effort (`core.bench.EFFORTS`) of the timed rounds in which finished models are measured at the end of a run, each
    in processes of its own; their speeds then stand in the table. None: those of the cells' own clocks do."""


class Suite(Spec):
    """A table to be filled: models and controls on one dataset, scored in one way."""

    schema_: Literal["genbench.suite/1"] = Field(alias="schema")
    name: str
    version: PositiveInt
    """Raised whenever a published number could move."""
    description: str
    features: RefField
    text_encoder: RefField | None = None
    """Judge of pictures beside captions, such as `shapes_clip`; None is `clip`."""
    metrics: Annotated[tuple[RefField, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    models: Annotated[
        tuple[Annotated[ModelEntry, BeforeValidator(_as_entry)], ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ]
    controls: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    tiers: dict[str, Tier] = Field(min_length=1)


_JOINED_LATER = frozenset({"text_encoder"})
"""Fields that cells have not had from the start."""


class Cell(Spec):
    """One row of work: a model or a control, on one dataset, with one seed; its key names its folder."""

    suite: str
    suite_version: PositiveInt
    tier: str
    role: Literal["model", "control"]
    subject: Ref
    dataset: Ref
    features: Ref
    text_encoder: Ref | None = None
    """Of the suite."""
    metrics: Annotated[tuple[Ref, ...], BeforeValidator(_as_tuple)]
    protocol: Tier
    samples_seen: int = Field(ge=0)
    seed: int
    device: Literal["cpu", "cuda"]
    source_sha256: str
    """Digest of every source file that can change a number of this cell."""
    genbench_version: str
    sampling: dict[str, Scalar] = {}
    """Sampler settings, split off from the model's own; they do not change the trained weights."""
    weights_from: str | None = None
    """Key of the cell that trains the same weights, None when this cell trains its own."""

    @property
    def label(self) -> str:
        """The row's name in tables: the subject with its sampler settings."""
        name = PurePath(self.subject.name).name if self.subject.name.endswith(".py") else self.subject.name
        config = {**self.subject.config, **self.sampling}
        return self.subject.model_copy(update={"name": name, "config": config}).label

    @property
    def key(self) -> str:
        """Digest of everything that can change a number of this cell; 16 hex digits.

        A field of `_JOINED_LATER` plays no part while it is None, so that folders from before it was there keep their
        names and can be read.
        """
        unset = {name for name in _JOINED_LATER if getattr(self, name) is None}
        return digest(self.model_dump(mode="json", exclude={"weights_from", *unset}))

    @property
    def train_key(self) -> str:
        """Digest of everything that can change the trained weights; equal keys share weights."""
        scored = {"weights_from", "sampling", "metrics", "features", "text_encoder", "protocol"}
        kept = self.protocol.model_dump(mode="json", include={"train_size", "precision"})
        return digest({**self.model_dump(mode="json", exclude=scored), "protocol": kept})


def digest(value: object) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _scalar(text: str) -> Scalar:
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _show(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
