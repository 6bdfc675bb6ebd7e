"""Generative adversarial network without a convolution: both players are transformers over growing and shrinking grids.

Title: TransGAN: Two Pure Transformers Can Make One Strong GAN, and That Can Scale Up. Authors: Jiang, Chang, Wang.
Year: 2021. arXiv: 2102.07074.

Idea: a generator whose grid of elements grows in side and falls in width from stage to stage is a transformer that a
memory can hold, and a discriminator that reads patches of several sizes sees details and the whole. Augmentation of
real and generated images alike, pixel norms, and biases of relative places make the two trainable.

Legend: x real image, x_tilde = G(z) generated image, z ~ N(0, I) latent, f discriminator, T random augmentation
(`genbench.prob.differentiable_augmentation`), lambda and epsilon weights.

    discriminator  minimise  E f(T x_tilde) - E f(T x) + lambda E (|grad f(T x_hat)| - 1)^2 + epsilon (E f(T x))^2
    generator      minimise  -E f(T x_tilde)

Networks: `genbench.nn.grid_transformer` (Sec. 3.1 to 3.4). The loss is that of `wgan_gp` with the drift that keeps
scores about zero.

Departures: weights do not decay. The scores of real and generated images come from one pass. `paper` is the network for
CIFAR-10, on pixel-shuffles alone, with pixel norms in the discriminator too, as the authors have it for STL-10. `smoke`
and `small` have fewer and narrower layers, fewer turns of the discriminator, a smaller batch and a larger learning rate
that falls along a cosine, and no cutout; `small` takes its first doubling by bicubic resampling, as the authors do for
larger images, and attends within cells of 8 x 8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._adversaries import Adversaries
from genbench.models._data_kinds import require_images
from genbench.nn.grid_transformer import GridGenerator, MultiScaleDiscriminator
from genbench.prob.differentiable_augmentation import augmented, policy_parts
from genbench.prob.gradient_penalty import gradient_penalty


@register_model("transgan")
class TransGAN(Adversaries):
    """Two transformers under the Wasserstein loss; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        latent_dim: Count = 1024
        generator_width: Count = 1024
        """Of the elements of the first grid."""
        generator_depths: tuple[int, ...] = (5, 4, 2)
        """Blocks on each grid of the generator; each grid has twice the side of the one before."""
        bicubic_below: Whole = 0
        """Grids that are doubled to a side below this one keep their width; others are pixel-shuffled."""
        discriminator_width: Count = 192
        """Of the elements of the first grid; each stage doubles it."""
        discriminator_depths: tuple[int, ...] = (3, 3)
        """Blocks of each stage of the discriminator."""
        patch: Count = 2
        """Side of the smallest patches of the discriminator; each stage doubles it."""
        num_heads: Count = 4
        cell: Count = 16
        """Greatest side of a cell in which elements attend to each other."""
        expansion: Count = 4
        """Units of dense layers for each of the width."""
        augmentation: str = "translation+cutout+color"
        """Names joined by `+`, see `genbench.prob.differentiable_augmentation`; empty for none."""
        penalty_weight: NonNegative = 10.0
        """lambda."""
        drift_weight: NonNegative = 1e-3
        """epsilon."""
        discriminator_turns: Count = 4
        lr: Positive = 1e-4
        final_lr_share: Share = 1.0
        warmup_steps: Whole = 0
        clip_norm: Positive | None = 5.0
        ema_decay: Fraction = 0.9999
        """Of the generator's weights."""
        batch_size: Count = 64

        def __post_init__(self) -> None:
            policy_parts(self.augmentation)
            if not all((*self.generator_depths, *self.discriminator_depths)):
                raise ValueError("every stage of either network has at least 1 block, found a depth of 0")

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            latent_dim=32,
            generator_width=64,
            generator_depths=(2, 1),
            bicubic_below=16,
            discriminator_width=32,
            discriminator_depths=(1, 1),
            expansion=2,
            augmentation="translation",
            discriminator_turns=1,
            lr=1e-3,
            ema_decay=0.98,
            batch_size=32,
        ),
        "small": Config(
            latent_dim=64,
            generator_width=96,
            generator_depths=(2, 1, 1),
            bicubic_below=16,
            discriminator_width=48,
            discriminator_depths=(1, 1),
            cell=8,
            expansion=2,
            augmentation="translation",
            discriminator_turns=1,
            lr=1e-3,
            final_lr_share=0.1,
            ema_decay=0.995,
            batch_size=32,
        ),
        "paper": Config(),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        require_images(spec, owner="transgan")
        self.config = c = config
        self.generator = GridGenerator(
            spec.shape,
            latent_dim=c.latent_dim,
            width=c.generator_width,
            depths=c.generator_depths,
            num_heads=c.num_heads,
            cell=c.cell,
            expansion=c.expansion,
            bicubic_below=c.bicubic_below,
        )
        self.discriminator = MultiScaleDiscriminator(
            spec.shape,
            patch=c.patch,
            width=c.discriminator_width,
            depths=c.discriminator_depths,
            num_heads=c.num_heads,
            cell=c.cell,
            expansion=c.expansion,
        )

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `discriminator` or of `generator`; the latter takes from the batch only its size."""
        if player == "discriminator":
            return self._discriminator_loss(self.on_scale(batch.x))
        x_tilde = self.generated(len(batch), None)
        score = self.judged(augmented(x_tilde, self.config.augmentation)).mean()
        return Loss(-score, {"score": score.detach()})

    def _discriminator_loss(self, x: Tensor) -> Loss:
        c = self.config
        with torch.no_grad():
            x_tilde = self.generated(len(x), None)
        real, fake = self._score(torch.cat([x, x_tilde])).chunk(2)
        distance = real.mean() - fake.mean()
        penalty = gradient_penalty(self._score, x, x_tilde)
        total = c.penalty_weight * penalty - distance + c.drift_weight * real.mean().square()
        return Loss(total, {"distance": distance.detach(), "penalty": penalty.detach()})

    def _score(self, x: Tensor) -> Tensor:
        scores: Tensor = self.discriminator(augmented(x, self.config.augmentation))
        return scores
