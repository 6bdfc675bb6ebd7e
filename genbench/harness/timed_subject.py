"""What a timed round measures: a subject that is ready to be called, the calls of it, and the machine beside them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from genbench.core.bench import Flag, Machine, Phase
from genbench.core.dataset import Batch
from genbench.core.model import GenerativeModel
from genbench.harness.round_job import RoundJob
from genbench.harness.sample import check_samples, drawing_batch
from genbench.harness.timed_audit import SCORED_SAMPLES
from genbench.harness.train import Order
from genbench.timing.canary import canary
from genbench.timing.clock import Clock
from genbench.timing.monitor import Monitor
from genbench.timing.turns import Turn, at_once
from genbench.timing.warmup import WarmUp

AUDIT_STREAM = 0
"""Seeds that audits ask for, the same in every round of a cell; round i asks for those of stream i + 1."""
_SEEDS_PER_ROUND, _STREAMS = 2**22, 2**10  # a generator of a CPU takes 32 bits of its seed and drops the rest
_MOST_CANARY_DRIFT = 0.03
_MOST_THROTTLED_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that is ready, with all that a phase needs to call it."""

    job: RoundJob
    model: GenerativeModel
    data: Batch
    """On the device: the training set, or for sampling alone the examples of the preparation."""
    order: Order
    clock: Clock
    turn: Turn = at_once
    """Whatever is timed, warm-up and canary among it, is a turn."""

    @property
    def device(self) -> torch.device:
        """Where model and data are."""
        return self.data.x.device

    @property
    def batch_size(self) -> int | None:
        """Examples in a call of the phase, as far as there is one such number."""
        phases = self.model.phases()
        by_phase: dict[Phase, int | None] = {
            "train": min(self.job.batch_size or phases[0].batch_size, len(self.data)) if phases else None,
            "latency": 1,
            "throughput": self.job.batch_size or self.drawing_batch,
            "memory": None,
            "counters": None,
        }
        return by_phase[self.job.phase]

    @property
    def drawing_batch(self) -> int:
        """The batch in which a cell draws its samples."""
        return drawing_batch(self.job.cell.protocol.num_samples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readings:
    """What a phase read: fields of a round, and of its cold start."""

    first_call_seconds: float | None = None
    """None for a phase in which nothing is timed."""
    warmup_seconds: float = 0.0
    flags: tuple[Flag, ...] = ()
    audit: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, object]
    """All else, by the names that it has in a round."""
    drawn: Tensor | None = None
    """Samples of the clock's own calls, for an audit."""

    def also(self, **fields: object) -> Readings:
        """The same readings with more fields."""
        return dataclasses.replace(self, fields={**self.fields, **fields})

    def audited(self, proofs: Mapping[str, bool]) -> Readings:
        """The same readings with more proofs; one that fails raises a flag."""
        audit = {**self.audit, **proofs}
        flags = self.flags if all(proofs.values()) else (*self.flags, "suspicious_fast")
        return dataclasses.replace(self, audit=audit, flags=tuple(dict.fromkeys(flags)))


class Draws:
    """Batches of samples, a new seed for each; the first few are kept, to be looked at off the clock."""

    def __init__(self, subject: Subject, size: int, *, stream: int | None = None) -> None:
        self._model, self._size, self._device = subject.model.eval(), size, subject.device
        self.first_seed = first_seed(subject, subject.job.index + 1 if stream is None else stream)
        """Of the requests; the calls without a seed of their own take the second half of the round's."""
        self._seeds = itertools.count(self.first_seed + _SEEDS_PER_ROUND // 2)
        self._kept: list[Tensor] = []
        self.calls = 0

    def __call__(self) -> Tensor:
        """Draw with the next seed."""
        return self.request(next(self._seeds))

    @torch.no_grad()
    def request(self, seed: int) -> Tensor:
        """Draw with this seed."""
        self.calls += 1
        drawn = self._model.sample(self._size, generator=torch.Generator(self._device).manual_seed(seed))
        if self.calls * self._size <= SCORED_SAMPLES or not self._kept:
            self._kept.append(drawn.clone())  # a replayed graph may write into the same memory again
        return drawn

    def kept(self) -> Tensor:
        """The first samples drawn: one batch, or as many as make 64.

        Raises:
            SampleError: they are not what the contract says, so their speed means nothing.
        """
        for drawn in self._kept:
            check_samples(drawn, self._size, self._model.spec)
        return torch.cat(self._kept)


def first_seed(subject: Subject, stream: int) -> int:
    """First of four million seeds that no other stream of the same cell has."""
    return (subject.job.cell.seed * 17 + stream) % _STREAMS * _SEEDS_PER_ROUND


class Watch:
    """The machine beside a phase: a canary first and last, and a monitor while the clock runs."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._before = self._canary()
        self.monitor = Monitor(subject.device)

    def readings(
        self,
        warm: Sequence[WarmUp],
        values: Mapping[str, tuple[float, ...]],
        *,
        images: int,
        host_bound: bool = False,
    ) -> Readings:
        """Everything that was read, after the last call."""
        machine = self.monitor.reading().model_copy(
            update={"canary_before_seconds": self._before, "canary_after_seconds": self._canary()}
        )
        unstable = not all(one.stable for one in warm)
        flags = _flags(machine)
        flags += ["host_bound"] if host_bound else []
        flags += ["warmup_unstable"] if unstable else []
        return Readings(
            first_call_seconds=sum(one.first_call_seconds for one in warm),
            warmup_seconds=sum(one.seconds for one in warm),
            flags=tuple(flags),
            fields={"values": dict(values), "machine": machine, "images": images},
        )

    def _canary(self) -> float | None:
        subject = self._subject
        with subject.turn():
            return canary(subject.clock, subject.device, seconds=subject.job.effort.canary_seconds)


def _flags(machine: Machine) -> list[Flag]:
    """What the machine itself says against a timing."""
    flags: list[Flag] = []
    if (machine.throttled_share or 0.0) > _MOST_THROTTLED_SHARE:
        flags.append("throttled")
    if machine.foreign_processes:
        flags.append("contended")
    before, after = machine.canary_before_seconds, machine.canary_after_seconds
    if before is not None and after is not None and abs(after / before - 1) > _MOST_CANARY_DRIFT:
        flags.append("canary_drift")
    return flags
