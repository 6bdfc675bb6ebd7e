"""Generative adversarial network with a regularised relativistic loss and modern networks, free of tricks.

Title: The GAN is dead; long live the GAN! A Modern GAN Baseline. Authors: Huang, Gokaslan, Kuleshov, Tompkin.
Year: 2024. arXiv: 2501.05441; the relativistic pairing is that of Jolicoeur-Martineau 2018 (1807.00734).

Idea: a discriminator that judges a generated image beside a real one, by the difference of their scores, leaves no
minimum where modes are missing; penalties on its slopes at real and at generated images make the game converge. With
that loss the tricks of StyleGAN2 are not needed, and plain residual networks may take the place of its own.

Legend: x real image, x_tilde = G(z) generated image, z ~ N(0, I) latent, D discriminator,
gamma weight of the penalties.

    discriminator  minimise  E softplus(D(x_tilde) - D(x)) + gamma / 2 (R1 + R2)
    generator      minimise  E softplus(D(x) - D(x_tilde))
    R1 = E |grad D(x)|^2        R2 = E |grad D(x_tilde)|^2,   both in every step

Networks: `genbench.nn.resnext_gan`, grouped inverted bottlenecks without normalisation, initial weights by fix-up,
bilinear resampling.

Departures: gamma and the second moment of Adam stay as they are, where the authors lower the one and lengthen the
other over training; the learning rate falls to the authors' last along a cosine. There is no augmentation, whose
strength they raise on CIFAR-10, and no class condition. `smoke` and `small` have fewer and narrower layers, twice
the channels on each smaller grid, a smaller batch and a larger learning rate; `smoke` works on blocks of 2 x 2 pixels
folded into channels, which is twice as fast and blunts edges. Vectors have MLPs, which the paper has none of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._adversaries import Adversaries
from genbench.models._data_kinds import takes_images
from genbench.nn.gan_networks import VectorCritic, VectorGenerator
from genbench.nn.resnext_gan import ResNeXtDiscriminator, ResNeXtGenerator
from genbench.prob.gradient_penalty import with_squared_slopes


@register_model("r3gan")
class R3GAN(Adversaries):
    """Relativistic pairs with penalties on both sides; see the module docstring."""

    takes = ("image", "vector")

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        latent_dim: Count = 64
        channels: Count = 768
        """Of the largest grid; each halving doubles them."""
        max_channels: Count = 768
        """Of any grid."""
        blocks: Count = 2
        """Residual blocks on each grid."""
        expansion: Count = 2
        """Width of the grouped convolution for each channel of a block."""
        group_size: Count = 16
        """Channels in a group."""
        fold: Count = 1
        """Side of the pixel blocks folded into channels."""
        vector_width: Count = 512
        """Of the layers of both MLPs."""
        gamma: NonNegative = 0.05
        """Twice the weight of either penalty."""
        discriminator_turns: Count = 1
        lr: Positive = 2e-4
        final_lr_share: Share = 0.25
        warmup_steps: Whole = 0
        clip_norm: Positive | None = None
        ema_decay: Fraction = 0.99993
        """Of the generator's weights; the default halves in 5 million examples (512 in a step)."""
        batch_size: Count = 512

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            latent_dim=32,
            channels=48,
            max_channels=96,
            blocks=1,
            fold=2,
            gamma=0.5,
            lr=1e-3,
            ema_decay=0.98,
            batch_size=32,
        ),
        "small": Config(
            channels=32,
            max_channels=128,
            blocks=1,
            gamma=0.2,
            lr=1e-3,
            final_lr_share=0.1,
            ema_decay=0.995,
            batch_size=32,
        ),
        "vector": Config(latent_dim=2, vector_width=128, gamma=0.1, lr=1e-3, ema_decay=0.99, batch_size=256),
        "paper": Config(),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.config = c = config
        if not takes_images(spec, owner="r3gan"):
            self.generator = VectorGenerator(spec.shape, latent_dim=c.latent_dim, channels=c.vector_width)
            self.discriminator = VectorCritic(spec.shape, channels=c.vector_width)
            return
        sizes = {
            "channels": c.channels,
            "max_channels": c.max_channels,
            "blocks": c.blocks,
            "expansion": c.expansion,
            "group_size": c.group_size,
            "fold": c.fold,
        }
        self.generator = ResNeXtGenerator(spec.shape, latent_dim=c.latent_dim, **sizes)
        self.discriminator = ResNeXtDiscriminator(spec.shape, **sizes)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `discriminator` or of `generator`, on pairs of a real and a generated example."""
        x = self.on_scale(batch.x)
        if player == "discriminator":
            return self._discriminator_loss(x)
        x_tilde = self.generated(len(x), None)
        with torch.no_grad():
            real = self.discriminator(x)
        total = relativistic_loss(self.judged(x_tilde), real)
        return Loss(total, {"pairing": total.detach()})

    def _discriminator_loss(self, x: Tensor) -> Loss:
        with torch.no_grad():
            x_tilde = self.generated(len(x), None)
        # Real and generated examples share a pass: nothing in the discriminator couples the examples of a batch.
        scores, squared_slopes = with_squared_slopes(self.discriminator, torch.cat([x, x_tilde]))
        real, fake = scores.chunk(2)
        pairing = relativistic_loss(real, fake)
        r1, r2 = (part.mean() for part in squared_slopes.chunk(2))
        parts = {"pairing": pairing.detach(), "r1": r1.detach(), "r2": r2.detach()}
        return Loss(pairing + self.config.gamma / 2 * (r1 + r2), parts)


def relativistic_loss(winner: Tensor, loser: Tensor) -> Tensor:
    """Mean over pairs of softplus(loser - winner), scores (B,) each: it falls as the first rises over the second."""
    return F.softplus(loser - winner).mean()
