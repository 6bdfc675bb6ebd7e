"""What models share that give every image of integers its probability: the loss, the likelihood, drawing, one player.

A paper's file adds its network and its settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import ExactLikelihood, GenerativeModel, Loss, Phase, Player


class PixelNetwork(nn.Module, ABC):
    """A distribution over images of integers."""

    @abstractmethod
    def start_from(self, codes: Tensor) -> None:
        """Start near the levels of the first batch (B, C, H, W)."""

    @abstractmethod
    def mean_nll(self, codes: Tensor) -> Tensor:
        """What training minimises: minus the mean log-probability of codes (B, C, H, W), a scalar in nats."""

    @abstractmethod
    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of codes (B, C, H, W): (B,) nats."""

    @abstractmethod
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw (N, C, H, W), integers."""


class Settings(Protocol):
    """What a paper's `Config` must hold."""

    @property
    def lr(self) -> float:
        """Learning rate."""

    @property
    def warmup_steps(self) -> int:
        """Over which it rises."""

    @property
    def final_lr_share(self) -> float:
        """Of it, at the end."""

    @property
    def ema_decay(self) -> float:
        """Of the weights."""

    @property
    def clip_norm(self) -> float:
        """Of the gradients."""

    @property
    def batch_size(self) -> int:
        """Of training."""


class PixelModel(GenerativeModel, ExactLikelihood):
    """A model around one network whose probabilities are exact.

    A subclass builds `pixels`.

    Args:
        spec: of images of integers.
        config: settings of the model.

    Raises:
        ValueError: the data are no images of integers.
    """

    pixels: PixelNetwork

    def __init__(self, spec: DataSpec, config: Settings) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(f"`{name}` models images of integers, found data of kind `{spec.kind}`")
        self.settings, self.levels = config, spec.levels

    def phases(self) -> tuple[Phase, ...]:
        """One phase: minus the log-likelihood from the first step to the last."""
        c = self.settings
        player = Player(
            name="model",
            modules=(self.pixels,),
            lr=c.lr,
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=c.batch_size),)

    def prepare(self, batch: Batch) -> None:
        """Start near the levels of the first batch."""
        self.pixels.start_from(batch.x.long())

    def loss(self, batch: Batch, player: str) -> Loss:
        """Minus the log-likelihood in nats per sub-pixel, so that its scale does not grow with the image."""
        nll = self.pixels.mean_nll(batch.x.long()) / self.spec.num_dims
        return Loss(nll, {"nats_per_dim": nll.detach()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw level after level, each feature computed once: (N, C, H, W) uint8."""
        return self.pixels.sample(num_samples, generator=generator).to(torch.uint8)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Logarithm of the probability of the integers, exact: (B,) nats; nothing is drawn."""
        return self.pixels.log_prob(x.long())
