"""The one training loop: phases, players and turns in, trained weights and timings out.

The loop knows nothing of any paradigm. A model says who is optimised and when; this file owns the
optimisers, precision, averaging, data order and the clock. Between two clock reads stand only the
steps themselves: loss, gradients, clipping, optimiser, average.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch
from genbench.core.errors import GenbenchError
from genbench.core.model import GenerativeModel, Phase, Player, SelfTraining
from genbench.core.record import Rate
from genbench.core.spec import TimingEffort
from genbench.core.units import rate_unit
from genbench.harness import clock
from genbench.harness.average import WeightAverage
from genbench.harness.looks import Looks, Pauses

PREPARATION_EXAMPLES = 256
Order = Callable[[int], Iterator[Tensor]]
"""Batch size -> endless batches of indices, all from one stream."""


class DivergedError(GenbenchError):
    """Training whose loss is not finite."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training stands, reported once per block."""

    phase: str
    samples_seen: int
    samples_total: int
    loss: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Training:
    """What training cost and how the loss went."""

    seconds: float
    """Wall-clock of all phases, warm-up included, preparation and looks not."""
    samples_seen: int
    images_per_second: Rate | None
    curve: tuple[Progress, ...]


def train(
    model: GenerativeModel,
    data: Batch,
    *,
    samples_seen: int,
    seed: int,
    precision: str = "float32",
    effort: TimingEffort | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    looks: Looks | None = None,
) -> Training:
    """Train a model in place on resident data; the same arguments give the same weights, whatever `looks` are.

    Args:
        model: on the device of `data`.
        data: the whole training set; examples come in seeded order, epoch after epoch.
        samples_seen: budget, shared out over phases; a batch counts once for each player's turn.
        seed: of the global stream and of the data order.
        precision: `float32`, or `bfloat16` for autocast.
        effort: how the clock is read.
        report: called at the end of every block.
        looks: when the clock stands, and what happens then.

    Raises:
        DivergedError: a loss was not finite.
    """
    effort = effort or TimingEffort()
    order = begin(model, data, seed=seed)
    pauses = Pauses(model, data.x.device, looks)
    rates, curve, seen = [], [], 0
    phases = model.phases()
    for phase in phases:
        run = _Run(model, phase, data, order, samples_seen, precision, effort, report, pauses)
        run.to_the_end(seen_before=seen, last=phase is phases[-1])
        seen += run.samples_seen
        curve += run.curve
        measured = clock.rate(run.block_rates, rate_unit(model.spec.kind))
        rates += [(phase.share, measured)] if measured is not None else []
    seconds = pauses.training_seconds()
    model.eval().requires_grad_(True)
    pauses.last(seen, seconds)
    return Training(seconds, seen, clock.chained_rate(rates), tuple(curve))


def begin(model: GenerativeModel, data: Batch, *, seed: int) -> Order:
    """Seed the global stream and let the model prepare itself; the order in which examples come from here on."""
    torch.manual_seed(seed)
    order = _order(len(data), seed=seed)
    model.train()
    model.prepare(data[next(order(min(len(data), PREPARATION_EXAMPLES)))])
    return order


class Turns:
    """The players of one phase, each with its optimiser, ready to play rounds.

    Args:
        model: whose phase it is.
        phase: whose players take turns.
        batch_size: of every turn.
        samples_total: training examples over all phases; they set the length of the learning-rate schedule.
        precision: `float32`, or `bfloat16` for autocast.
    """

    def __init__(
        self, model: GenerativeModel, phase: Phase, *, batch_size: int, samples_total: int, precision: str
    ) -> None:
        self.images_per_round = batch_size * sum(player.turns for player in phase.players)
        self.num_rounds = max(1, round(samples_total * phase.share / self.images_per_round))
        self._turns = [_turn(model, player, self.num_rounds, precision) for player in phase.players]

    def play(self, batches: Callable[[], Batch]) -> Tensor:
        """One round: every player takes its turns on a batch each; the last loss, detached."""
        loss = torch.zeros(())
        for turn in self._turns:
            for _ in range(turn.player.turns):
                loss = turn.step(batches())
        return loss

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place, as after `end`, and then the weights themselves again."""
        with contextlib.ExitStack() as stack:
            for turn in self._turns:
                stack.enter_context(turn.averaged())
            yield

    def end(self) -> None:
        """Hand the model the averaged weights."""
        for turn in self._turns:
            turn.end()


class _Run:
    """One phase: its players' turns, round after round, in timed blocks.

    A block that a look or the end cuts short is no reading, unless there is no other.
    """

    def __init__(
        self,
        model: GenerativeModel,
        phase: Phase,
        data: Batch,
        order: Order,
        samples_total: int,
        precision: str,
        effort: TimingEffort,
        report: Callable[[Progress], None],
        pauses: Pauses,
    ) -> None:
        batch_size = min(phase.batch_size, len(data))
        self.phase, self._data, self._samples_total = phase, data, samples_total
        self._effort, self._report, self._pauses = effort, report, pauses
        self._turns = Turns(model, phase, batch_size=batch_size, samples_total=samples_total, precision=precision)
        self.num_rounds, self._images_per_round = self._turns.num_rounds, self._turns.images_per_round
        self._batches = order(batch_size)
        self.samples_seen = self.num_rounds * self._images_per_round
        self.block_rates: list[float] = []
        self.curve: list[Progress] = []

    def to_the_end(self, *, seen_before: int, last: bool) -> None:
        """Play all rounds: one to warm up each kernel, a few to settle, the rest in timed blocks.

        Args:
            seen_before: examples of earlier phases.
            last: no phase follows, so that the end of this one is the end of the training.
        """
        device, done = self._data.x.device, 0
        wanted = min(self._effort.warmup_steps, self.num_rounds)
        cut_short: list[float] = []
        while done < self.num_rounds:
            seen = seen_before + done * self._images_per_round
            left = min(self.num_rounds - done, self._pauses.rounds_left(seen, self._images_per_round))
            length = int(min(wanted, left))
            before = clock.read(device)
            loss = self._rounds(length)
            seconds = clock.read(device) - before
            done, seen = done + length, seen + length * self._images_per_round
            speed = length * self._images_per_round / seconds
            if done > self._effort.warmup_steps:
                (self.block_rates if length == wanted else cut_short).append(speed)
            self._note(loss, seen, speed)
            wanted = clock.block_length(seconds / length, min_block_seconds=self._effort.min_block_seconds)
            if not (last and done == self.num_rounds):
                self._pauses.come(seen, self._turns.averaged)
        self.block_rates = self.block_rates or cut_short
        self._turns.end()

    def _rounds(self, count: int) -> Tensor:
        loss = torch.zeros(())
        for _ in range(count):
            loss = self._turns.play(lambda: self._data[next(self._batches)])
        return loss

    def _note(self, loss: Tensor, samples_seen: int, speed: float) -> None:
        value = float(loss)
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss of phase `{self.phase.name}` is {value} after {samples_seen} samples",
                hint="lower the learning rate, clip gradients (`clip_norm`) or train in float32",
            )
        progress = Progress(self.phase.name, samples_seen, self._samples_total, value, speed)
        self.curve.append(progress)
        self._report(progress)


def _turn(model: GenerativeModel, player: Player, num_rounds: int, precision: str) -> _Turn | _OwnTurn:
    if isinstance(model, SelfTraining):
        return _OwnTurn(model, player, precision)
    return _Turn(model, player, num_rounds, precision)


class _OwnTurn:
    """The step of a model that has its own optimisers."""

    def __init__(self, model: SelfTraining, player: Player, precision: str) -> None:
        self.player, self._model, self._precision = player, model, precision

    def step(self, batch: Batch) -> Tensor:
        """One step on one batch; the detached loss."""
        with _autocast(batch.x.device, self._precision):
            return self._model.train_step(batch).detach()

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to put in place."""
        return contextlib.nullcontext()

    def end(self) -> None:
        """Nothing to hand over: the weights are the model's own."""


class _Turn:
    """One player's optimiser and its single step."""

    def __init__(self, model: GenerativeModel, player: Player, num_rounds: int, precision: str) -> None:
        self.player, self._model, self._precision = player, model, precision
        self._parameters = _parameters(player.modules)
        own = {id(parameter) for parameter in self._parameters}
        self._others = [parameter for parameter in model.parameters() if id(parameter) not in own]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=player.lr, betas=player.betas, weight_decay=player.weight_decay, fused=True
        )
        steps = num_rounds * player.turns
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: lr_share(player, step, steps))
        decay = player.ema_decay
        self._average = None if decay is None else WeightAverage(self._parameters, decay)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step on one batch; the detached loss."""
        _only(self._parameters, self._others)
        with _autocast(batch.x.device, self._precision):
            loss = self._model.loss(batch, self.player.name).total
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._limit_gradients()
        self._optimiser.step()
        self._schedule.step()
        if self._average is not None:
            self._average.update()
        return loss.detach()

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """The averaged weights in place, and then the weights themselves again."""
        return contextlib.nullcontext() if self._average is None else self._average.in_place()

    def _limit_gradients(self) -> None:
        """Scale gradients down to `clip_norm`, and have the optimiser pass over the step from `skip_norm` on.

        The fused optimiser reads `found_inf` on the device, as under loss scaling, so no step waits for the norm.
        """
        clip, skip = self.player.clip_norm, self.player.skip_norm
        if clip is None and skip is None:
            return
        norm = nn.utils.clip_grad_norm_(self._parameters, math.inf if clip is None else clip, foreach=True)
        if skip is not None:
            self._optimiser.found_inf = (~(norm < skip)).float()  # type: ignore[attr-defined]

    def end(self) -> None:
        """Hand the model the averaged weights."""
        if self._average is not None:
            self._average.copy_back()


def lr_share(player: Player, step: int, num_steps: int) -> float:
    """Learning rate of a step as a share of the player's: linear warm-up, then a cosine."""
    warmup = min(1.0, (step + 1) / (player.warmup_steps + 1))
    done = min(1.0, step / max(1, num_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return warmup * (player.final_lr_share + (1 - player.final_lr_share) * cosine)


def _order(num_examples: int, *, seed: int) -> Order:
    """Endless batches of indices from one stream of shuffled epochs."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.int64)

    def batches(batch_size: int) -> Iterator[Tensor]:
        nonlocal waiting
        while True:
            while len(waiting) < batch_size:
                waiting = torch.cat([waiting, torch.randperm(num_examples, generator=generator)])
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            yield batch

    return batches


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Parameters of all modules, each once."""
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def _only(own: Sequence[nn.Parameter], others: Sequence[nn.Parameter]) -> None:
    """Let gradients flow to a player's own parameters alone: the others' would be computed for nothing."""
    for parameters, wanted in ((own, True), (others, False)):
        for parameter in parameters:
            if parameter.requires_grad is not wanted:
                parameter.requires_grad_(wanted)


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
