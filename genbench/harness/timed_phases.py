"""What each phase of a timed round calls, how often, and what it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from genbench.core.bench import Counters, Memory, Phase
from genbench.core.errors import GenbenchError
from genbench.core.spec import TimingEffort
from genbench.harness.round_job import NOT_APPLICABLE
from genbench.harness.sample import draw
from genbench.harness.timed_audit import audit_training, scores_agree
from genbench.harness.timed_subject import AUDIT_STREAM, Draws, Readings, Subject, Watch, first_seed
from genbench.harness.timed_training import Stage, chained
from genbench.timing.audit import sampling_proofs
from genbench.timing.blocks import Blocks, timed_blocks
from genbench.timing.clock import read
from genbench.timing.counters import count
from genbench.timing.memory import peak_memory
from genbench.timing.requests import timed_requests
from genbench.timing.warmup import WarmUp, warm_up


class NotApplicable(GenbenchError):
    """A phase that means nothing for its subject."""


assert NotApplicable.__name__ == NOT_APPLICABLE


def audited(subject: Subject, readings: Readings) -> Readings:
    """Score what was drawn on the clock beside what the plain model draws, after a variant is undone."""
    if not subject.job.audit or readings.drawn is None:
        return readings
    size = subject.batch_size or 1
    draws = Draws(subject, size, stream=AUDIT_STREAM)
    plain = torch.cat([draws() for _ in range(-(-len(readings.drawn) // size))])
    return readings.audited({"scores_agree": scores_agree(readings.drawn, plain)})


def measured(subject: Subject) -> Readings:
    """Measure the phase that the subject's job names.

    Raises:
        NotApplicable: the subject has nothing to measure in this phase.
    """
    measures: dict[Phase, Callable[[Subject], Readings]] = {
        "train": _train,
        "latency": _latency,
        "throughput": _throughput,
        "memory": _memory,
        "counters": _counters,
    }
    return measures[subject.job.phase](subject)


def _train(subject: Subject) -> Readings:
    effort, clock = subject.job.effort, subject.clock
    before = read(clock)
    stages = _stages(subject)
    if not stages:
        raise NotApplicable("this model does not train", hint="a file that trains has `train_step(batch)`")
    optimisers_seconds = read(clock) - before  # a new process pays for them before its first step
    watch = Watch(subject)
    with subject.turn():
        warm = [warm_up(stage.from_loader, clock, effort=effort) for stage in stages]
    begun = sum(stage.images for stage in stages)
    with watch.monitor:
        whole = [_blocks(subject, stage.from_loader, one) for stage, one in zip(stages, warm, strict=True)]
        alone = [_blocks(subject, stage.on_resident_batch, one) for stage, one in zip(stages, warm, strict=True)]
    images = sum(stage.images for stage in stages) - begun
    for stage in stages:
        stage.check()
    rates = {
        "train_images_per_second": _chained(stages, whole),
        "train_compute_images_per_second": _chained(stages, alone),
    }
    readings = watch.readings(warm, rates, images=images, host_bound=any(blocks.host_bound for blocks in whole))
    first_call_seconds = optimisers_seconds + sum(one.first_call_seconds for one in warm)
    readings = dataclasses.replace(readings, first_call_seconds=first_call_seconds)
    return readings.audited(audit_training(stages, subject.device)) if subject.job.audit else readings


def _blocks(subject: Subject, call: Callable[[], object], warm: WarmUp) -> Blocks:
    effort, turn = subject.job.effort, subject.turn
    return timed_blocks(call, subject.clock, seconds_per_call=warm.seconds_per_call, effort=effort, turn=turn)


def _stages(subject: Subject) -> list[Stage]:
    subject.model.train()
    job = subject.job
    return [
        Stage(subject.model, phase, subject.data, subject.order, job.cell, job.batch_size)
        for phase in subject.model.phases()
    ]


def _chained(stages: Sequence[Stage], blocks: Sequence[Blocks]) -> tuple[float, ...]:
    rates = [
        [stage.images_per_round / seconds for seconds in one.seconds_per_call]
        for stage, one in zip(stages, blocks, strict=True)
    ]
    return chained([stage.share for stage in stages], rates)


def _latency(subject: Subject) -> Readings:
    effort, clock = subject.job.effort, subject.clock
    draws = Draws(subject, 1)
    watch = Watch(subject)
    with subject.turn():
        warm = warm_up(draws, clock, effort=effort)
    begun = draws.calls
    with watch.monitor:
        taken = timed_requests(draws.request, clock, first_seed=draws.first_seed, effort=effort, turn=subject.turn)
    images = draws.calls - begun
    draws.kept()
    readings = watch.readings([warm], {"latency_seconds": taken}, images=images)
    if not subject.job.audit:
        return readings
    proofs, digest = sampling_proofs(draws.request, clock, first_seed=first_seed(subject, AUDIT_STREAM))
    return readings.audited(proofs).also(samples_sha256=digest)


def _throughput(subject: Subject) -> Readings:
    effort, clock = subject.job.effort, subject.clock
    size = subject.batch_size
    assert size is not None
    draws = Draws(subject, size)
    watch = Watch(subject)
    with subject.turn():
        warm = warm_up(draws, clock, effort=effort)
    begun = draws.calls
    with watch.monitor:
        blocks = _blocks(subject, draws, warm)
    images = (draws.calls - begun) * size
    rates = {"sample_images_per_second": tuple(size / seconds for seconds in blocks.seconds_per_call)}
    readings = watch.readings([warm], rates, images=images, host_bound=blocks.host_bound)
    drawn = draws.kept()
    return dataclasses.replace(readings.also(memory=peak_memory(draws, subject.device)), drawn=drawn)


def _memory(subject: Subject) -> Readings:
    """Peaks of steady calls: training at its own batch size, sampling at a cell's."""
    draws = Draws(subject, subject.drawing_batch)
    draws()
    peaks = {"sample": peak_memory(draws, subject.device)}
    draws.kept()
    if subject.model.phases():
        peaks["train"] = _highest([_training_peak(subject, number) for number in range(len(subject.model.phases()))])
    return Readings(fields={"peaks": peaks})


def _training_peak(subject: Subject, number: int) -> Memory:
    """Peak of one stage; the optimisers of the others do not exist beside it, as in training."""
    subject.model.train()
    job = subject.job
    phase = subject.model.phases()[number]
    stage = Stage(subject.model, phase, subject.data, subject.order, job.cell, job.batch_size)
    stage.from_loader()
    return peak_memory(stage.from_loader, subject.device)


def _highest(peaks: Sequence[Memory]) -> Memory:
    dumped = [peak.model_dump() for peak in peaks]
    return Memory(
        **{name: max((one[name] for one in dumped if one[name] is not None), default=None) for name in dumped[0]}
    )


def _counters(subject: Subject) -> Readings:
    """Counts of steady calls: one round of the players of every stage, and one sample."""
    parameters = sum(parameter.numel() for parameter in subject.model.parameters())
    draws = Draws(subject, 1)
    draws()
    sampled = count(draws, parameters=parameters)
    seen = draw(subject.model, 1, seed=subject.job.cell.seed, effort=TimingEffort(latency_requests=0))
    counters = {"sample": sampled.model_copy(update={"network_evaluations": seen.network_evaluations})}
    stages = _stages(subject)
    if not stages:
        return Readings(fields={"counters": counters})
    parts = [_counted(stage, parameters) for stage in stages]
    counters["train"] = _sum(parts)
    per_image = [part.flops / stage.images_per_round for part, stage in zip(parts, stages, strict=True)]
    shared = sum(stage.share * flops for stage, flops in zip(stages, per_image, strict=True))
    flops_per_image = shared / sum(stage.share for stage in stages)
    return Readings(fields={"counters": counters, "flops_per_image": flops_per_image})


def _counted(stage: Stage, parameters: int) -> Counters:
    stage.from_loader()  # what only a first step makes, such as an optimiser's moments, is not counted
    return count(stage.on_resident_batch, parameters=parameters)


def _sum(parts: Sequence[Counters]) -> Counters:
    return Counters(
        flops=sum(part.flops for part in parts),
        uncounted=tuple(sorted({name for part in parts for name in part.uncounted})),
        operators=sum(part.operators for part in parts),
        bytes_allocated=sum(part.bytes_allocated for part in parts),
        parameters=parts[0].parameters,
    )
