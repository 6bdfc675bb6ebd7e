"""Looks at a model in the middle of its training, during which the clock of the training stands."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

from genbench.core.model import GenerativeModel
from genbench.harness import clock


@dataclasses.dataclass(frozen=True)
class Looks:
    """Pauses of a training in which the model is looked at, as it would be used if training ended there."""

    every: int
    """Training examples between two looks; the last look is at the end whatever remains."""
    look: Callable[[int, float], None]
    """Told the examples seen and the seconds of training so far. The model is in evaluation mode and has its averaged
    weights; its buffers, its modes and the global stream are put back afterwards."""


class Pauses:
    """The clock of a training that is looked at: it stands during looks."""

    def __init__(self, model: GenerativeModel, device: torch.device, looks: Looks | None) -> None:
        self._model, self._device, self._looks = model, device, looks
        self._next = 0 if looks is None else looks.every
        self._paused = 0.0
        self._started = clock.read(device)

    def training_seconds(self) -> float:
        """Seconds of training so far."""
        return clock.read(self._device) - self._started - self._paused

    def rounds_left(self, samples_seen: int, images_per_round: int) -> float:
        """Rounds to the next look, infinite where there is none."""
        if self._looks is None:
            return math.inf
        return math.ceil((self._next - samples_seen) / images_per_round)

    def come(self, samples_seen: int, averaged: Callable[[], AbstractContextManager[None]]) -> None:
        """Look where it is time to.

        Args:
            samples_seen: so far.
            averaged: puts the averaged weights in place, and then the weights themselves again.
        """
        if self._looks is None or samples_seen < self._next:
            return
        self._next = (samples_seen // self._looks.every + 1) * self._looks.every
        seconds = self.training_seconds()
        with averaged(), _put_back(self._model, self._device):
            self._model.eval()
            self._looks.look(samples_seen, seconds)
        self._paused = clock.read(self._device) - self._started - seconds

    def last(self, samples_seen: int, seconds: float) -> None:
        """Look at the finished model."""
        if self._looks is not None:
            with _put_back(self._model, self._device):
                self._looks.look(samples_seen, seconds)


@contextlib.contextmanager
def _put_back(model: GenerativeModel, device: torch.device) -> Iterator[None]:
    """Leave buffers, modes and the global stream as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    for module, training in modes:
        module.training = training
