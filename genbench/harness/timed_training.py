"""Training as a timed round sees it: the rounds of every phase of a model, ready to be called."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genbench.core.dataset import Batch
from genbench.core.model import GenerativeModel, Phase
from genbench.core.spec import Cell
from genbench.harness.train import DivergedError, Order, Turns


class Stage:
    """One phase of training: a call is one round of its players, exactly as `train` plays it.

    Args:
        model: on the device of `data`, in training mode.
        phase: one of the model's.
        data: the training set, resident.
        order: of the examples.
        cell: whose budget sets the learning-rate schedule; timing may run past its end.
        batch_size: of every turn; None takes the phase's own.
    """

    def __init__(
        self, model: GenerativeModel, phase: Phase, data: Batch, order: Order, cell: Cell, batch_size: int | None
    ) -> None:
        self.batch_size = min(batch_size or phase.batch_size, len(data))
        self.name, self.share = phase.name, phase.share
        self.calls = 0
        self._data, self._indices = data, order(self.batch_size)
        self._resident = data[: self.batch_size]
        self._loss = torch.zeros(())
        self._turns = Turns(
            model,
            phase,
            batch_size=self.batch_size,
            samples_total=cell.samples_seen,
            precision=cell.protocol.precision,
        )
        self.images_per_round = self._turns.images_per_round
        modules = [module for player in phase.players for module in player.modules]
        self.parameters = [parameter for module in modules for parameter in module.parameters()]

    @property
    def images(self) -> int:
        """Examples trained on so far."""
        return self.calls * self.images_per_round

    def from_loader(self) -> Tensor:
        """One round on fresh batches."""
        return self._play(self._next)

    def on_resident_batch(self) -> Tensor:
        """One round on a batch that is on the device already."""
        return self._play(lambda: self._resident)

    def check(self) -> None:
        """Look at the last loss, off the clock.

        Raises:
            DivergedError: it is not finite, and the speed of such a training is nobody's.
        """
        value = float(self._loss)
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss of phase `{self.name}` is {value} after {self.images} timed examples",
                hint="`genbench run` says whether it diverges within its budget too",
            )

    def end(self) -> None:
        """Hand the model the averaged weights, as at the end of a training."""
        self._turns.end()

    def _next(self) -> Batch:
        return self._data[next(self._indices)]

    def _play(self, batches: Callable[[], Batch]) -> Tensor:
        self._loss = self._turns.play(batches)
        self.calls += 1
        return self._loss


def chained(shares: Sequence[float], rates: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Rates of a training whose phases follow each other: block by block, the harmonic mean by share of the work.

        r_i = sum_p s_p / sum_p (s_p / r_pi)

    Args:
        shares: s_p, the share of the examples that each phase gets.
        rates: r_pi, readings of each phase; the shortest says how many blocks come out.
    """
    total = sum(shares)
    return tuple(
        total / sum(share / rate for share, rate in zip(shares, block, strict=True))
        for block in zip(*rates, strict=False)
    )
