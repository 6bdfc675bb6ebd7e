"""What a generator and the discriminator that it is trained against share, whatever their losses: players and turns."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from torch import Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.model import Phase, Player
from genbench.models._latent_generator import OnePass, held_constant

BETAS = (0.0, 0.99)
"""Adam without momentum, as in R3GAN, TransGAN and ViTGAN."""


class AdversarySettings(Protocol):
    """What a paper's `Config` must hold of the game; the meaning of each is said there."""

    @property
    def latent_dim(self) -> int:
        """Length of the noise."""

    @property
    def discriminator_turns(self) -> int:
        """Steps of the discriminator for each one of the generator."""

    @property
    def lr(self) -> float:
        """Of both players."""

    @property
    def final_lr_share(self) -> float:
        """Learning rate at the end as a share of `lr`."""

    @property
    def warmup_steps(self) -> int:
        """Steps of each player over which its learning rate rises."""

    @property
    def clip_norm(self) -> float | None:
        """Largest norm of a gradient."""

    @property
    def ema_decay(self) -> float:
        """Of the generator's weights."""

    @property
    def batch_size(self) -> int:
        """Of every turn."""


class Adversaries(OnePass):
    """A generator against a `discriminator`, which takes its turns first; a subclass has both networks and the losses.

    Args:
        spec: of the data.
        config: settings of the model.
    """

    discriminator: nn.Module

    def __init__(self, spec: DataSpec, config: AdversarySettings) -> None:
        super().__init__(spec, latent_dim=config.latent_dim)
        self._settings = config

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the turns of the discriminator, then one of the generator, whose weights are averaged."""
        c = self._settings
        discriminator = Player(
            name="discriminator",
            modules=(self.discriminator,),
            lr=c.lr,
            betas=BETAS,
            turns=c.discriminator_turns,
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
        )
        generator = dataclasses.replace(
            discriminator, name="generator", modules=(self.generator,), turns=1, ema_decay=c.ema_decay
        )
        players = (discriminator, generator)
        return (Phase(name="adversarial", share=1.0, players=players, batch_size=c.batch_size),)

    def judged(self, x: Tensor) -> Tensor:
        """Scores (B,) of data by the discriminator as it stands: gradients reach the data and not its weights."""
        return held_constant(self.discriminator)(x)
