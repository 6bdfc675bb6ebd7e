"""Exponential moving average of weights, one fused call for all tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class WeightAverage:
    """Average of parameters over training, to be copied back at its end.

    The decay rises as (1 + t) / (10 + t) up to `decay`, so that a short training does not keep
    its random start. Buffers are not averaged: codebooks and running moments keep their last value.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = list(parameters)
        self._average = [parameter.detach().clone() for parameter in parameters]
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._average, self._parameters, 1 - decay)
        self._steps += 1

    @torch.no_grad()
    def copy_back(self) -> None:
        """Replace the present weights by the average."""
        torch._foreach_copy_(self._parameters, self._average)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in place of the weights, for a look at it; the weights themselves come back afterwards."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self.copy_back()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, kept)
