"""Generative adversarial network of two vision transformers, kept stable by a discriminator of bounded slope.

Title: ViTGAN: Training GANs with Vision Transformers. Authors: Lee, Chang, Jiang, Zhang, Tu, Liu. Year: 2021.
arXiv: 2107.04589; consistency under augmentation is that of Zhao et al. 2020 (2002.04724).

Idea: penalties that tame convolutional discriminators work badly with attention, so slopes are bounded by
construction: attention by distances in place of products, weights whose spectral norm stays as it was, overlapping
patches. The latent modulates the normalisations of the generator, and each patch is painted as a function of the place
within it.

Legend: x real image, x_tilde = G(z) generated image, z ~ N(0, I) latent, D discriminator, T random augmentation
(`genbench.prob.differentiable_augmentation`), lambda weight of consistency, gamma weight of the penalty.

    discriminator  minimise  E softplus(-D(T x)) + E softplus(D(T x_tilde)) + gamma / 2 E |grad D(T x)|^2
                             + lambda (E (D(T x) - D(x))^2 + E (D(T x_tilde) - D(x_tilde))^2)       bCR
    generator      minimise  E softplus(-D(T x_tilde))

Networks: `genbench.nn.vit_gan`, `genbench.nn.spectral_linear`.

Departures: the distances of L2 attention enter with the minus sign of Kim et al. 2020 (2006.04710), so that close
elements see each other; the paper's equation lacks it. The latent passes two layers, not eight. Learning rates are not
equalised over layers, so that of `paper` is far below the authors', who take StyleGAN2's. `smoke` and `small` have
fewer and narrower layers, smaller batches, no cutout and no changes of colour; `small` asks for less consistency, since
at 16 pixels a shift of two tells one position of an object from another.
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
from genbench.models._data_kinds import require_images
from genbench.nn.vit_gan import ViTDiscriminator, ViTGenerator
from genbench.prob.differentiable_augmentation import augmented, policy_parts
from genbench.prob.gradient_penalty import with_squared_slopes


@register_model("vitgan")
class ViTGAN(Adversaries):
    """Two vision transformers under the non-saturating loss; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        latent_dim: Count = 384
        patch: Count = 4
        """Side of a patch of either player."""
        overlap: Count = 2
        """Pixels by which the discriminator's patches reach over their neighbours."""
        generator_width: Count = 384
        generator_layers: Count = 4
        painter_width: Count = 384
        """Units of the layer of sines that paints a patch."""
        frequency: Positive = 1.0
        """Factor inside the sines."""
        discriminator_width: Count = 384
        discriminator_layers: Count = 4
        num_heads: Count = 6
        expansion: Count = 4
        """Units of dense layers for each of the width."""
        augmentation: str = "translation+cutout+color"
        """Names joined by `+`, see `genbench.prob.differentiable_augmentation`; empty for none."""
        consistency_weight: NonNegative = 10.0
        """lambda."""
        gamma: NonNegative = 10.0
        """Twice the weight of R1."""
        discriminator_turns: Count = 1
        lr: Positive = 2e-4
        final_lr_share: Share = 1.0
        warmup_steps: Whole = 0
        clip_norm: Positive | None = None
        ema_decay: Fraction = 0.9956
        """Of the generator's weights; the default halves in 20,000 examples (128 in a step)."""
        batch_size: Count = 128

        def __post_init__(self) -> None:
            policy_parts(self.augmentation)

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            latent_dim=32,
            patch=2,
            overlap=1,
            generator_width=48,
            generator_layers=2,
            painter_width=32,
            discriminator_width=48,
            discriminator_layers=2,
            num_heads=4,
            expansion=2,
            augmentation="translation",
            gamma=0.5,
            lr=1e-3,
            ema_decay=0.98,
            batch_size=32,
        ),
        "small": Config(
            latent_dim=64,
            patch=4,
            overlap=2,
            generator_width=128,
            generator_layers=3,
            painter_width=64,
            discriminator_width=96,
            discriminator_layers=3,
            num_heads=4,
            expansion=2,
            augmentation="translation",
            consistency_weight=1.0,
            gamma=0.1,
            lr=5e-4,
            final_lr_share=0.1,
            ema_decay=0.995,
            batch_size=32,
        ),
        "paper": Config(),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        require_images(spec, owner="vitgan")
        self.config = c = config
        self.generator = ViTGenerator(
            spec.shape,
            latent_dim=c.latent_dim,
            patch=c.patch,
            width=c.generator_width,
            num_layers=c.generator_layers,
            num_heads=c.num_heads,
            expansion=c.expansion,
            painter_width=c.painter_width,
            frequency=c.frequency,
        )
        self.discriminator = ViTDiscriminator(
            spec.shape,
            patch=c.patch,
            overlap=c.overlap,
            width=c.discriminator_width,
            num_layers=c.discriminator_layers,
            num_heads=c.num_heads,
            expansion=c.expansion,
        )

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `discriminator` or of `generator`; the latter takes from the batch only its size."""
        if player == "discriminator":
            return self._discriminator_loss(self.on_scale(batch.x))
        x_tilde = self.generated(len(batch), None)
        total = F.softplus(-self.judged(augmented(x_tilde, self.config.augmentation))).mean()
        return Loss(total, {"adversarial": total.detach()})

    def _discriminator_loss(self, x: Tensor) -> Loss:
        c = self.config
        with torch.no_grad():
            x_tilde = self.generated(len(x), None)
            both = torch.cat([x, x_tilde])
            real, fake = augmented(both, c.augmentation).chunk(2)
        real_scores, squared_slopes = with_squared_slopes(self.discriminator, real)
        fake_scores = self.discriminator(fake)
        adversarial = F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()
        r1 = squared_slopes.mean()
        change = torch.cat([real_scores, fake_scores]) - self.discriminator(both)
        consistency = 2 * change.square().mean()  # the mean over real images and that over generated ones
        parts = {"adversarial": adversarial.detach(), "r1": r1.detach(), "consistency": consistency.detach()}
        return Loss(adversarial + c.gamma / 2 * r1 + c.consistency_weight * consistency, parts)
