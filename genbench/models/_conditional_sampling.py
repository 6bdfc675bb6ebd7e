"""What models share that may be told a class or a caption: who draws conditions, who is asked, who is guided."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch
from genbench.core.errors import SettingError
from genbench.core.model import Conditional, ConditionKind
from genbench.nn.conditioning import Conditioner, guided


class ConditionalSampling(Conditional):
    """Sampling with and without conditions, around what the model does with their vectors.

    A subclass lists this before `GenerativeModel`, sets `conditioner`, None where it is unconditional, gives it to a
    player and draws in `sampled`.
    """

    conditioner: Conditioner | None

    @property
    def condition_kind(self) -> ConditionKind:
        """What it is told; `none` where it is unconditional."""
        return "none" if self.conditioner is None else self.conditioner.kind

    @abstractmethod
    def sampled(self, num_samples: int, told: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw (N, *shape), given vectors of conditions (N, dim) or without a condition."""

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw (N, *shape); a conditional model draws the conditions too, from those of training examples."""
        if self.conditioner is None:
            return self.sampled(num_samples, None, generator=generator)
        return self.sample_given(self.conditioner.drawn(num_samples, generator=generator), generator=generator)

    @torch.no_grad()
    def sample_given(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """One image for each label (N,) or caption (N, T): (N, *shape).

        Raises:
            SettingError: the model is unconditional.
        """
        if self.conditioner is None:
            raise SettingError("this model is unconditional", hint="train it with condition=class or condition=text")
        return self.sampled(len(condition), self.conditioner(condition), generator=generator)

    def told_in_training(self, batch: Batch) -> Tensor | None:
        """Vectors of the conditions of a batch, some of them left out: (B, dim), or None."""
        return None if self.conditioner is None else self.conditioner.trained(batch)

    def output(
        self,
        network: Callable[..., Tensor],
        x: Tensor,
        t: Tensor,
        told: Tensor | None,
        *,
        guidance: float = 1.0,
        channels: int | None = None,
    ) -> Tensor:
        """Output of a network for x (B, ...) at times t (B,).

        Args:
            network: x and t, and where the model is conditional vectors (B, dim) as well, to an output.
            x: (B, ...).
            t: (B,).
            told: (B, dim), vectors of conditions; None is no condition.
            guidance: s of `nn.conditioning`; without effect where nothing is told.
            channels: of the output that are guided, the first ones; the others are those with the condition.
        """
        if self.conditioner is None:
            return network(x, t)
        nothing = self.conditioner.no_condition(len(x))
        if told is None:
            return network(x, t, nothing)
        return guided(network, x, t, told=told, nothing=nothing, scale=guidance, channels=channels)
