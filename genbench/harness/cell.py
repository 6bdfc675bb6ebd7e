"""One cell from beginning to end: data, model, training, samples, evidence, scores, record."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, build_dataset
from genbench.core.errors import GenbenchError
from genbench.core.files import LOSSES, WEIGHTS, write_atomically
from genbench.core.metric import OF_ASKED_SAMPLES, Evidence, Metric, Need, build_metric, scores_or_reason
from genbench.core.model import MODELS, GenerativeModel
from genbench.core.record import Environment, Failure, Record, Score, Timing
from genbench.core.spec import Cell
from genbench.evaluation.networks import Networks, roles_of
from genbench.harness import clock
from genbench.harness.applicable import why_not
from genbench.harness.asked_evidence import gather_asked
from genbench.harness.building import build, training_set
from genbench.harness.controls import control_samples
from genbench.harness.environment import environment
from genbench.harness.evidence import gather, num_compared, subset
from genbench.harness.kept_training import forget, keep, kept_training, times_alike
from genbench.harness.quality import QualityWatch
from genbench.harness.sample import Drawing, check_samples, draw, oddities
from genbench.harness.text_evidence import gather_texts
from genbench.harness.train import Progress, Training, train

_CONTROL_SEED = 7919
_Asked = tuple[str, bool]
"""Words before captions when they are embedded, and whether captions are of combinations that training shows."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What stands behind a cell's samples; a control has samples alone."""

    samples: Tensor
    model: GenerativeModel | None = None
    timing: Timing = dataclasses.field(default_factory=Timing)


def run_cell(
    cell: Cell, folder: Path, *, weights_folder: Path | None, report: Callable[[str, Progress | None], None]
) -> Record:
    """Run one cell and leave weights and samples in its folder.

    Args:
        cell: what to run.
        folder: the cell's own folder; a training that an earlier attempt has finished there is not done again.
        weights_folder: folder of the finished cell that trained the same weights, or None.
        report: told the name of each phase as it begins, and how training goes.

    Returns:
        The record, not yet written. A cell that fails gives a record that says where and why.
    """
    story = _Story(cell, folder, weights_folder, report)
    try:
        return story.tell()
    except Exception as error:
        traceback.print_exc()
        return story.failed(error)


class _Story:
    """The phases of one cell in order; `phase` says where it stands when something breaks."""

    def __init__(
        self, cell: Cell, folder: Path, weights_folder: Path | None, report: Callable[[str, Progress | None], None]
    ) -> None:
        self._cell, self._folder, self._weights_folder, self._report = cell, folder, weights_folder, report
        self._device = torch.device(cell.device)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._phase = "start"
        self._seconds: dict[str, float] = {}
        self._environment: Environment | None = None
        self._earlier_peak = 0.0  # GiB, of the process that trained where this one did not

    def tell(self) -> Record:
        """Run all phases."""
        cell = self._cell
        with self._during("data"):
            self._environment = environment(self._device)
            dataset = build_dataset(cell.dataset)
            networks = Networks(roles_of(cell), self._device)
            networks.get("features")  # a missing one is found before anything is trained
            train_set = training_set(cell, dataset)
        is_model = cell.role == "model"
        made = self._model(dataset, train_set, networks) if is_model else self._control(dataset, train_set)
        with self._during("save"):
            self._save_samples(made.samples, dataset.spec)
        with self._during("score"):
            scores, skipped = self._score(dataset, networks, made)
        peak = max(clock.peak_memory_gib(self._device), self._earlier_peak)
        timing = made.timing.model_copy(update={"phases": self._seconds, "peak_memory_gib": peak})
        parameters = None if made.model is None else sum(p.numel() for p in made.model.parameters()) or None
        return self._record(
            status="ok",
            scores=scores,
            skipped=skipped,
            flags=oddities(made.samples),
            timing=timing,
            num_parameters=parameters,
            model=made.model,
        )

    def failed(self, error: Exception) -> Record:
        """The record of a cell that broke in its present phase."""
        failure = Failure(
            phase=self._phase,
            type=type(error).__name__,
            message=error.message if isinstance(error, GenbenchError) else str(error) or type(error).__name__,
            hint=error.hint if isinstance(error, GenbenchError) else None,
            log=f"cells/{self._cell.key}/stderr.log",
        )
        return self._record(status="failed", error=failure, timing=Timing(phases=self._seconds))

    def _model(self, dataset: Dataset, train_set: Batch, networks: Networks) -> Made:
        cell = self._cell
        clock.reset_peak_memory(self._device)
        with self._during("build"):
            torch.manual_seed(cell.seed)
            model = build(cell, dataset).to(self._device)
        trained = self._taken_over(model, train_set) or self._reused_or_trained(model, dataset, train_set, networks)
        with self._during("sample"):
            drawing = draw(model, cell.protocol.num_samples, seed=cell.seed, effort=cell.protocol.timing)
        return Made(drawing.samples, model, _timing(trained, drawing))

    @property
    def _here(self) -> Environment:
        assert self._environment is not None  # the first phase reads it
        return self._environment

    def _taken_over(self, model: GenerativeModel, train_set: Batch) -> Timing | None:
        """Load the weights of a training that an earlier attempt has finished, with all that was measured of it."""
        kept = kept_training(self._cell, self._folder, train_set, self._here)
        if kept is None:
            forget(self._folder)
            return None
        with self._during("train"):
            model.load_state_dict(safetensors.torch.load(kept.weights))
        self._environment = kept.environment(self._here)
        self._seconds["train"] = kept.training.phase_seconds
        self._earlier_peak = kept.training.timing.peak_memory_gib or 0.0
        return kept.training.timing

    def _reused_or_trained(
        self, model: GenerativeModel, dataset: Dataset, train_set: Batch, networks: Networks
    ) -> Timing:
        with self._during("train"):
            timing = self._reused(model)
            if timing is not None:
                return timing
            timing = self._trained(model, train_set, self._watch(dataset, networks, model))
        keep(
            self._cell,
            self._folder,
            train_set,
            timing=timing.model_copy(update={"peak_memory_gib": clock.peak_memory_gib(self._device)}),
            phase_seconds=self._seconds["train"],
            environment=self._here,
        )
        return timing

    def _watch(self, dataset: Dataset, networks: Networks, model: GenerativeModel) -> QualityWatch | None:
        """Looks for the target of the tier; None where there is none, or none for this model."""
        target = self._cell.protocol.target
        if target is None:
            return None
        watch = QualityWatch(target, self._cell, dataset, networks, model)
        return watch if watch.why_not is None else None

    def _trained(self, model: GenerativeModel, train_set: Batch, watch: QualityWatch | None) -> Timing:
        cell = self._cell
        if not model.phases():
            return Timing()
        training = train(
            model,
            train_set.to(self._device),
            samples_seen=cell.samples_seen,
            seed=cell.seed,
            precision=cell.protocol.precision,
            effort=cell.protocol.timing,
            report=lambda progress: self._report("train", progress),
            looks=None if watch is None else watch.looks,
        )
        write_atomically(self._folder / WEIGHTS, safetensors.torch.save(_unshared(model)))
        write_atomically(self._folder / LOSSES, _curve(training))
        return Timing(
            train_seconds=training.seconds,
            train_images_per_second=training.images_per_second,
            time_to_quality=None if watch is None else watch.found(),
        )

    def _reused(self, model: GenerativeModel) -> Timing | None:
        """Load the weights that another cell trained, with what that cost; nothing measured on another machine."""
        if self._weights_folder is None or not (self._weights_folder / WEIGHTS).is_file():
            return None
        payload = (self._weights_folder / WEIGHTS).read_bytes()
        model.load_state_dict(safetensors.torch.load(payload))
        owner = Record.model_validate_json((self._weights_folder / "record.json").read_bytes())
        if owner.environment is None or not times_alike(owner.environment, self._here):
            return Timing()
        kept = owner.timing
        return Timing(train_seconds=kept.train_seconds, train_images_per_second=kept.train_images_per_second)

    def _control(self, dataset: Dataset, train_set: Batch) -> Made:
        with self._during("sample"):
            skip = num_compared(self._cell, dataset) if dataset.spec.kind == "vector" else 0
            held_out = subset(dataset, "test", self._cell.protocol.num_samples, skip=skip).x
            generator = torch.Generator().manual_seed(self._cell.seed + _CONTROL_SEED)
            name = self._cell.subject.name
            samples = control_samples(name, held_out, train_set.x, dataset.spec, generator=generator)
            check_samples(samples, len(held_out), dataset.spec)
        return Made(samples)

    def _score(self, dataset: Dataset, networks: Networks, made: Made) -> tuple[tuple[Score, ...], dict[str, str]]:
        """Scores in the order of the suite's metrics, and why the others are not there."""
        metrics = {ref.label: build_metric(ref) for ref in self._cell.metrics}
        control = self._cell.subject.name if self._cell.role == "control" else ""
        reasons = {
            name: why_not(metric, made.model, dataset, networks, control=control) for name, metric in metrics.items()
        }
        skipped = {name: reason for name, reason in reasons.items() if reason is not None}
        applied = {name: metric for name, metric in metrics.items() if name not in skipped}
        evidence = self._evidence(list(applied.values()), dataset, networks, made)
        scores: list[Score] = []
        for name, metric in applied.items():
            found = scores_or_reason(metric, evidence[_asked_with(metric)])
            if isinstance(found, str):
                skipped[name] = found
            else:
                scores += found
        return tuple(scores), skipped

    def _evidence(
        self, metrics: Sequence[Metric], dataset: Dataset, networks: Networks, made: Made
    ) -> dict[_Asked | None, Evidence]:
        """Of the cell's samples under None, and of samples drawn for a condition under how they were asked for."""
        evidence: dict[_Asked | None, Evidence] = {}
        for asked in dict.fromkeys(map(_asked_with, metrics)):
            needs: frozenset[Need] = frozenset().union(*(m.needs for m in metrics if _asked_with(m) == asked))
            if asked is None:
                evidence[asked] = gather(needs, self._cell, dataset, networks, made.samples, made.model)
                if Need.TEXTS in needs:
                    texts = gather_texts(needs, self._cell, dataset, made.samples, made.model)
                    evidence[asked] = dataclasses.replace(evidence[asked], texts=texts)
            else:
                prefix, seen = asked
                evidence[asked] = gather_asked(
                    needs, self._cell, dataset, networks, made.model, caption_prefix=prefix, seen=seen
                )
        return evidence

    def _save_samples(self, samples: Tensor, spec: DataSpec) -> None:
        buffer = io.BytesIO()
        levels, sample_rate = np.array(spec.levels or 0), np.array(spec.sample_rate or 0)
        np.savez_compressed(buffer, samples=samples.numpy(), levels=levels, sample_rate=sample_rate)
        write_atomically(self._folder / "samples.npz", buffer.getvalue())

    def _record(self, *, model: GenerativeModel | None = None, **fields: object) -> Record:
        described = {} if model is None else {"paradigm": _paradigm(self._cell), "source": _source(model)}
        return Record.model_validate(
            {
                "key": self._cell.key,
                "cell": self._cell,
                "environment": self._environment,
                "started": self._started,
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                **described,
                **fields,
            }
        )

    @contextlib.contextmanager
    def _during(self, phase: str) -> Iterator[None]:
        self._phase = phase
        self._report(phase, None)
        before = time.perf_counter()
        yield
        self._seconds[phase] = round(clock.read(self._device) - before, 4)


def _timing(trained: Timing, drawing: Drawing) -> Timing:
    return trained.model_copy(
        update={
            "sample_images_per_second": drawing.images_per_second,
            "latency_seconds": drawing.latency_seconds,
            "real_time_factor": drawing.real_time_factor,
            "network_evaluations": drawing.network_evaluations,
        }
    )


def _asked_with(metric: Metric) -> _Asked | None:
    """How a metric wants samples asked for that are drawn for a condition; None: it is about any samples."""
    return (metric.caption_prefix, metric.asks_seen) if metric.needs & OF_ASKED_SAMPLES else None


def _unshared(model: GenerativeModel) -> dict[str, Tensor]:
    """The state dict with every tensor in memory of its own, as safetensors wants it."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}


def _curve(training: Training) -> bytes:
    buffer = io.BytesIO()
    seen = np.array([point.samples_seen for point in training.curve])
    np.savez(buffer, samples_seen=seen, loss=np.array([point.loss for point in training.curve]))
    return buffer.getvalue()


def _paradigm(cell: Cell) -> str:
    path = MODELS.path(cell.subject.name)
    return "external" if path is None else path.parent.name


def _source(model: GenerativeModel) -> str:
    """First paragraphs of the module that defines the model, up to its legend."""
    doc = sys.modules[type(model).__module__].__doc__ or ""
    return "\n\n".join(doc.strip().split("\n\n")[:2])
