"""One timed round: data and model as in a cell, then one phase of it on the clock, and nothing else.

Everything before the first steady call has a column of its own (`ColdStart`) and is in no rate. What the phases are:

- `train`: rounds of all players, with batches from the loader (end to end) and then on a batch that stays on the
  device. Every player's turn counts, as in training. Stages of a training that follow each other are timed one by one;
  block i of each is chained with block i of the others into the rate of the whole, a harmonic mean by share.
- `latency`: one sample at a time. `throughput`: batches of one size, and their peak memory in a pass of its own.
- `memory` and `counters`: one call of training and one of sampling, off the clock.

Sampling is timed with the weights that the job names, or else with fresh ones: the speed of few models depends on what
they have learnt.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch

from genbench.core.bench import ColdStart, Round
from genbench.core.dataset import Batch, Dataset, build_dataset
from genbench.core.errors import GenbenchError, SettingError
from genbench.core.files import WEIGHTS
from genbench.core.model import GenerativeModel
from genbench.core.record import Environment, Failure
from genbench.harness.building import build, training_set
from genbench.harness.environment import environment
from genbench.harness.evidence import subset
from genbench.harness.round_job import RoundJob
from genbench.harness.timed_phases import audited, measured
from genbench.harness.timed_subject import Readings, Subject
from genbench.harness.train import PREPARATION_EXAMPLES, begin
from genbench.timing.clock import Clock, DeviceClock, read
from genbench.timing.turns import Turn, at_once
from genbench.timing.variants import as_variant


def measure(job: RoundJob, *, import_seconds: float = 0.0, clock: Clock | None = None, turn: Turn = at_once) -> Round:
    """Measure one round in this process, which should have done nothing else before.

    Args:
        job: what to measure.
        import_seconds: what it took to import everything; becomes part of the cold start.
        clock: of the cell's device; None takes the device's own.
        turn: in which everything is timed, where another round is measured beside this one.

    Returns:
        The round. Whatever goes wrong stands in its `error`, running out of memory among it.
    """
    story = _Story(job, import_seconds, clock, turn)
    try:
        return story.tell()
    except Exception as error:
        traceback.print_exc()
        return story.failed(error)


class _Story:
    """The steps of one round in order; `phase` says where it stands when something breaks."""

    def __init__(self, job: RoundJob, import_seconds: float, clock: Clock | None, turn: Turn) -> None:
        self._job, self._turn = job, turn
        self._device = torch.device(job.cell.device)
        self._clock = DeviceClock(self._device) if clock is None else clock
        self._phase = "start"
        self._seconds = {"import": import_seconds}
        self._environment: Environment | None = None
        self._batch_size = job.batch_size
        self._weights_sha256: str | None = None

    def tell(self) -> Round:
        """Take all steps."""
        with self._during("start"):
            self._environment = environment(self._device)
        with self._during("data"):
            dataset = build_dataset(self._job.cell.dataset)
            examples = self._examples(dataset)
        with self._during("build"):
            torch.manual_seed(self._job.cell.seed)
            model = build(self._job.cell, dataset).to(self._device)
        with self._during("load"):
            subject = self._loaded(model, examples)
            self._batch_size = subject.batch_size
        with self._during(self._job.phase), as_variant(model, self._job.variant):
            readings = measured(subject)
        with self._during("audit"):
            readings = audited(subject, readings)
        del dataset, examples, model, subject
        with self._during("teardown"):
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return self._round(readings)

    def failed(self, error: Exception) -> Round:
        """The round that broke in the present step."""
        size = "" if self._batch_size is None else f" (batch size {self._batch_size})"
        message = error.message if isinstance(error, GenbenchError) else str(error) or type(error).__name__
        failure = Failure(
            phase=self._phase,
            type=type(error).__name__,
            message=f"{message}{size}",
            hint=error.hint if isinstance(error, GenbenchError) else None,
        )
        return self._described(error=failure)

    def _examples(self, dataset: Dataset) -> Batch:
        """The training set, or for sampling alone what a model needs to prepare itself."""
        if self._job.phase in {"train", "memory", "counters"}:
            return training_set(self._job.cell, dataset)
        return subset(dataset, "train", PREPARATION_EXAMPLES)

    def _loaded(self, model: GenerativeModel, examples: Batch) -> Subject:
        """Data on the device, weights in the model."""
        job, data = self._job, examples.to(self._device)
        order = begin(model, data, seed=job.cell.seed)
        if job.weights is not None:
            self._load(model, job.weights / WEIGHTS if job.weights.is_dir() else job.weights)
        return Subject(job=job, model=model, data=data, order=order, clock=self._clock, turn=self._turn)

    def _load(self, model: GenerativeModel, file: Path) -> None:
        payload = file.read_bytes()
        self._weights_sha256 = hashlib.sha256(payload).hexdigest()
        try:
            model.load_state_dict(safetensors.torch.load(payload))
        except RuntimeError as error:
            raise SettingError(
                f"{file}: not the weights of `{self._job.cell.label}` with these settings: {error}",
                hint="`--suite`, `--tier` and the settings in `-m` must be those that it was trained with",
            ) from error

    def _round(self, readings: Readings) -> Round:
        cold = None
        if readings.first_call_seconds is not None:
            cold = ColdStart(
                import_seconds=self._seconds["import"],
                build_seconds=self._seconds["build"],
                load_seconds=self._seconds["load"],
                first_call_seconds=readings.first_call_seconds,
                warmup_seconds=readings.warmup_seconds,
                teardown_seconds=self._seconds["teardown"],
            )
        return self._described(cold=cold, flags=readings.flags, audit=dict(readings.audit), **readings.fields)

    def _described(self, **fields: object) -> Round:
        job = self._job
        named = {"label": job.cell.label, "phase": job.phase, "variant": job.variant, "index": job.index}
        size = {"batch_size": self._batch_size, "sweep": job.sweep, "environment": self._environment}
        how = {"in_turns": self._turn is not at_once, "weights_sha256": self._weights_sha256}
        return Round.model_validate({**named, **size, **how, **fields})

    @contextlib.contextmanager
    def _during(self, phase: str) -> Iterator[None]:
        self._phase = phase
        before = time.perf_counter()
        yield
        self._seconds[phase] = read(self._clock) - before
