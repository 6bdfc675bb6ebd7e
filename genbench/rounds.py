"""Timed rounds of many subjects: a fresh process for each, in an order in which drift hits all alike.

A machine drifts: it warms up, clocks fall, neighbours come and go. Round i of every subject and phase therefore comes
before round i + 1 of any, in a random order with a fixed seed, one process at a time.
"""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from genbench.core.bench import Bench, BenchFile, Effort, Phase, Round, Variant
from genbench.core.files import write_atomically
from genbench.core.record import Environment
from genbench.core.spec import Cell
from genbench.core.version import VERSION
from genbench.executors.round_process import (
    DEADLINE_SECONDS,
    HERE,
    Installation,
    Side,
    run_round,
    run_side_by_side,
)
from genbench.harness.batch_search import BatchSearch
from genbench.harness.round_job import NOT_APPLICABLE, RoundJob
from genbench.harness.round_summary import median_reading, summary
from genbench.store import utc_now

__all__ = [
    "BENCH_FILE",
    "DEADLINE_SECONDS",
    "HERE",
    "MAX_BATCH",
    "NOT_APPLICABLE",
    "PHASES",
    "Installation",
    "Progress",
    "RoundJob",
    "Side",
    "bench",
    "run_round",
    "run_side_by_side",
]

PHASES: tuple[Phase, ...] = ("train", "latency", "throughput", "memory", "counters")
MAX_BATCH = 1024
BENCH_FILE = "bench.json"
_ONCE: tuple[Phase, ...] = ("counters", "memory")
"""Phases in which nothing is timed: they say the same in every round."""
_BEFORE_MEASURING = {"start", "data", "build", "load"}
"""Where a failure is the subject's rather than a phase's: every other round would meet it too."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Told when a round begins, and again when it ends."""

    job: RoundJob
    done: int
    """Rounds that have ended."""
    planned: int | None
    """Rounds in all; None while a sweep decides how many."""
    round: Round | None = None
    """What came out; None when the round begins."""


@dataclasses.dataclass(frozen=True)
class _Subject:
    """A row: a cell in one variant. Cells are compared by identity: their settings do not hash."""

    number: int
    cell: Cell = dataclasses.field(compare=False)
    variant: Variant = dataclasses.field(compare=False)


_Job = tuple[_Subject, RoundJob]


def bench(
    cells: Sequence[Cell],
    *,
    effort: Effort,
    folder: Path,
    phases: Sequence[Phase] = PHASES,
    variants: Sequence[Variant] = ("eager",),
    tell: Callable[[Progress], None] = lambda progress: None,
    audit: bool = False,
    weights: Mapping[str, Path] | None = None,
    max_batch: int = MAX_BATCH,
    seed: int = 0,
    installation: Installation = HERE,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> BenchFile:
    """Measure models in rounds; what is finished stands in `bench.json` of the folder after every round.

    Args:
        cells: of models; controls are left out.
        effort: rounds, and how long each runs the clock.
        folder: for the rounds' own folders and the result.
        phases: what to measure. `throughput` first sweeps over batch sizes, then measures the best one.
        variants: how networks run; each is a row of its own.
        tell: told of the beginning and the end of every round.
        audit: let timed rounds prove that they did the work.
        weights: trained ones by the key of the cell; cells without are measured with fresh ones.
        max_batch: where a sweep ends at the latest.
        seed: of the order of rounds.
        installation: whose code is measured.
        deadline_seconds: for one round.

    Raises:
        KeyboardInterrupt: the round in flight is lost.
    """
    pairs = [(cell, variant) for cell in cells if cell.role == "model" for variant in variants]
    subjects = [_Subject(number, cell, variant) for number, (cell, variant) in enumerate(pairs)]
    template = _Template(effort, audit, {} if weights is None else weights)
    start = _Start(folder, installation, deadline_seconds)
    book = _Book(subjects, start, tell)
    order = random.Random(seed)  # noqa: S311 - an order, no secret
    once = [(s, template.job(s, p)) for s in subjects for p in _ONCE if p in phases and _says_more(s, p)]
    book.play(_shuffled(once, order))
    best = _swept(book, subjects, template, max_batch, order) if "throughput" in phases else {}
    timed = [phase for phase in phases if phase not in _ONCE]
    every = [(subject, phase) for subject in subjects for phase in timed if book.works(subject, phase)]
    book.planned = len(book.played) + effort.rounds * len(every)
    for index in range(effort.rounds):
        jobs = [(s, template.job(s, phase, index=index, batch_size=_size(phase, best.get(s)))) for s, phase in every]
        book.play(_shuffled(jobs, order))
    return book.file()


def _says_more(subject: _Subject, phase: Phase) -> bool:
    """Whether the phase is worth a round: operators inside a compiled network cannot be counted."""
    return subject.variant == "eager" or phase != "counters"


def _size(phase: Phase, best: int | None) -> int | None:
    return best if phase == "throughput" else None


def _shuffled(jobs: Iterable[_Job], order: random.Random) -> list[_Job]:
    shuffled = list(jobs)
    order.shuffle(shuffled)
    return shuffled


def _swept(
    book: _Book, subjects: Sequence[_Subject], template: _Template, max_batch: int, order: random.Random
) -> Mapping[_Subject, int]:
    """Best batch size of every subject; sizes grow side by side."""
    searches = {subject: BatchSearch(max_batch) for subject in subjects}
    while True:
        sizes = {s: search.size for s, search in searches.items() if book.works(s, "throughput")}
        jobs = [(s, template.point(s, size)) for s, size in sizes.items() if size is not None]
        if not jobs:
            return {s: search.best for s, search in searches.items() if search.best is not None}
        for subject, done in book.play(_shuffled(jobs, order)):
            searches[subject].note(median_reading(done, "sample_images_per_second"))


@dataclasses.dataclass(frozen=True)
class _Template:
    """What all jobs of a bench share."""

    effort: Effort
    audit: bool
    weights: Mapping[str, Path]

    def job(self, subject: _Subject, phase: Phase, *, index: int = 0, batch_size: int | None = None) -> RoundJob:
        """A job of a phase."""
        return RoundJob(
            cell=subject.cell,
            phase=phase,
            variant=subject.variant,
            index=index,
            batch_size=batch_size,
            effort=self.effort,
            audit=self.audit,
            weights=self.weights.get(subject.cell.key),
        )

    def point(self, subject: _Subject, batch_size: int) -> RoundJob:
        """A point of a sweep: short, since only the best size is measured in full."""
        short = self.effort.model_copy(
            update={
                "warmup_calls": min(self.effort.warmup_calls, 2),
                "warmup_seconds": min(self.effort.warmup_seconds, 0.5),
                "max_warmup_seconds": min(self.effort.max_warmup_seconds, 10.0),
                "min_blocks": min(self.effort.min_blocks, 3),
                "min_seconds": min(self.effort.min_seconds, 1.0),
                "canary_seconds": 0.0,
            }
        )
        job = self.job(subject, "throughput", batch_size=batch_size)
        return dataclasses.replace(job, effort=short, audit=False, sweep=True)


@dataclasses.dataclass(frozen=True)
class _Start:
    """How rounds are started."""

    folder: Path
    installation: Installation
    deadline_seconds: float


class _Book:
    """Plays jobs one after the other, and knows what has come out so far."""

    def __init__(self, subjects: Sequence[_Subject], start: _Start, tell: Callable[[Progress], None]) -> None:
        self._subjects, self._start, self._tell = subjects, start, tell
        self._created = utc_now()
        self._broken: set[tuple[_Subject, Phase]] = set()
        self.played: list[tuple[_Subject, Round]] = []
        self.planned: int | None = None
        if (start.folder / BENCH_FILE).is_file():  # an earlier bench, whose rounds must not stand among these
            shutil.rmtree(start.folder / "rounds", ignore_errors=True)
            (start.folder / BENCH_FILE).unlink()

    def works(self, subject: _Subject, phase: Phase) -> bool:
        """Whether no round has shown yet that the phase cannot be measured."""
        return (subject, phase) not in self._broken

    def play(self, jobs: Sequence[_Job]) -> list[tuple[_Subject, Round]]:
        """Run the jobs whose phase still works; each subject with what came out."""
        before = len(self.played)
        for subject, job in jobs:
            if self.works(subject, job.phase):
                self._play(subject, job)
        return self.played[before:]

    def _play(self, subject: _Subject, job: RoundJob) -> None:
        self._tell(Progress(job, len(self.played), self.planned))
        done = run_round(
            job,
            folder=self._start.folder / "rounds" / f"{len(self.played):04d}-{_slug(job.title)}",
            installation=self._start.installation,
            deadline_seconds=self._start.deadline_seconds,
        )
        self.played.append((subject, done))
        self._note(subject, done)
        if any(one.environment is not None for _, one in self.played):
            self.file()
        self._tell(Progress(job, len(self.played), self.planned, done))

    def _note(self, subject: _Subject, done: Round) -> None:
        if done.error is None:
            return
        if done.error.phase in _BEFORE_MEASURING:
            self._broken |= {(subject, phase) for phase in PHASES}
        elif not done.sweep or done.batch_size == 1:
            self._broken.add((subject, done.phase))

    def file(self) -> BenchFile:
        """Everything so far, written to the folder."""
        made = BenchFile(
            genbench_version=VERSION,
            created=self._created,
            environment=self._environment(),
            results=tuple(self._result(subject) for subject in self._subjects),
            rounds=tuple(done for _, done in self.played),
        )
        write_atomically(self._start.folder / BENCH_FILE, made.model_dump_json(indent=1).encode() + b"\n")
        return made

    def _result(self, subject: _Subject) -> Bench:
        """A row; counters are the eager variant's, which runs the same operators."""
        own = [done for one, done in self.played if one == subject]
        counted = [done for one, done in self.played if one.cell is subject.cell and one != subject and done.counters]
        return summary(subject.cell, subject.variant, [*own, *counted])

    def _environment(self) -> Environment:
        seen = [done.environment for _, done in self.played if done.environment is not None]
        if seen:
            return seen[0]
        import torch  # every round died before it could say where it ran

        from genbench.harness.environment import environment

        return environment(torch.device("cpu"))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-")[:80]
