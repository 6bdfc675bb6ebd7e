"""What models share that may be told a class or a caption: who draws conditions, who is asked, who is guided."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import Conditional, ConditionKind
from genbench.nn.conditioning import Conditioner, guided


class ConditionSettings(Protocol):
    """What a paper's `Config` must hold of conditions; the meaning of each is said there."""

    @property
    def condition(self) -> ConditionKind:
        """What the network is told."""

    @property
    def drop_condition(self) -> float:
        """Share of examples whose condition is left out."""


def conditioner_for(
    spec: DataSpec, config: ConditionSettings, dim: int, *, owner: str, text_encoder: str = ""
) -> Conditioner | None:
    """What makes vectors (B, dim) of conditions, None where the network is told nothing.

    Args:
        spec: of the data.
        config: says what the network is told.
        dim: of the vectors.
        owner: name of the model, for messages.
        text_encoder: name or folder of a frozen encoder of captions; empty trains one.

    Raises:
        SettingError: the data have no such conditions, or nothing is told that the encoder could read.
    """
    if text_encoder and config.condition != "text":
        raise SettingError(
            f"`{owner}` has a `text_encoder` and is told no text", hint="condition=text, or leave it out"
        )
    if config.condition == "none":
        return None
    share = config.drop_condition
    return Conditioner(spec, config.condition, dim, drop_share=share, owner=owner, text_encoder=text_encoder)


class ConditionalSampling(Conditional):
    """Sampling with and without conditions, around what the model does with them.

    A subclass lists this before `GenerativeModel`, sets `conditioner`, None where its network is told nothing, trains
    it beside the network (`learners`) and draws in `sampled`.
    """

    conditioner: Conditioner | None

    @property
    def condition_kind(self) -> ConditionKind:
        """What it is told; `none` where it is unconditional."""
        return "none" if self.conditioner is None else self.conditioner.kind

    @abstractmethod
    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw (N, *shape), given labels (N,) or captions (N, T), or without a condition."""

    def prepare(self, batch: Batch) -> None:
        """Keep conditions to draw from until training brings its own."""
        if self.conditioner is not None:
            self.conditioner.prepare(batch)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw (N, *shape); a conditional model draws the conditions too, from those of training examples."""
        if self.condition_kind == "none":
            return self.sampled(num_samples, None, generator=generator)
        return self.sample_given(self.drawn_conditions(num_samples, generator=generator), generator=generator)

    @torch.no_grad()
    def sample_given(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """One image for each label (N,) or caption (N, T): (N, *shape).

        Raises:
            SettingError: the model is unconditional.
        """
        if self.condition_kind == "none":
            raise SettingError("this model is unconditional", hint="train it with condition=class or condition=text")
        return self.sampled(len(condition), condition, generator=generator)

    def drawn_conditions(self, count: int, *, generator: Generator) -> Tensor:
        """Conditions of training examples, at random: labels (count,) or captions (count, T)."""
        assert self.conditioner is not None
        return self.conditioner.drawn(count, generator=generator)

    def told(self, condition: Tensor | None) -> Tensor | None:
        """Vectors of conditions for the network, (B, dim); None where there is none, or the network is told nothing."""
        if condition is None or self.conditioner is None:
            return None
        vectors: Tensor = self.conditioner(condition)
        return vectors

    def told_in_training(self, batch: Batch) -> Tensor | None:
        """Vectors of the conditions of a batch, some of them left out: (B, dim), or None."""
        return None if self.conditioner is None else self.conditioner.trained(batch)

    def learners(self, network: nn.Module) -> tuple[nn.Module, ...]:
        """Modules of the player that trains a network: the network, and what makes vectors of conditions."""
        return (network,) if self.conditioner is None else (network, self.conditioner)

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
