"""What autoencoders share that are trained to look right: two networks, and what they are told about a reconstruction.

A reconstruction is judged by its pixels, by a perceptual distance and, once an adversary is there, by a discriminator
of patches whose part is weighed so that its gradient at the decoder's last layer is as long as that of the rest (Esser
et al. 2021, 2012.09841, Eq. 5 to 7). Symbols: x image, x^ reconstruction, D discriminator, d perceptual distance.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.core.features import PerceptualDistance, build_features
from genbench.core.model import Loss, Player
from genbench.core.spec import parse_ref
from genbench.nn.attention import SpatialAttention
from genbench.nn.patch_discriminator import PatchDiscriminator
from genbench.nn.resnet import DownTower, UpTower

LEAST_SLOPE = 1e-6
"""delta of Eq. 7."""
LARGEST_WEIGHT = 1e4
"""Cap of the relative weight, as in the authors' code."""
Perceptual = Literal["discriminator", "lpips", "none"]


class Encoder(nn.Module):
    """Images (B, C, side, side) in [-1, 1] to features (B, outputs, s, s) float32, with attention on the small grid.

    Args:
        num_channels: C.
        width: channels of every grid.
        num_blocks: residual blocks on each grid.
        num_halvings: from the image to the small grid.
        num_outputs: of each position.
    """

    def __init__(self, num_channels: int, *, width: int, num_blocks: int, num_halvings: int, num_outputs: int) -> None:
        super().__init__()
        self.tower = DownTower(num_channels, width, num_halvings=num_halvings, num_blocks=num_blocks)
        self.attention = SpatialAttention(width)
        self.head = nn.Conv2d(width, num_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images."""
        features: Tensor = self.head(self.attention(self.tower(x)))
        return features.float()


class Decoder(nn.Module):
    """Features (B, D, s, s) to reconstructions (B, C, side, side), images where in [-1, 1].

    Args:
        num_inputs: D.
        num_channels: C.
        side: of the images.
        width: channels of every grid.
        num_blocks: residual blocks on each grid.
        num_halvings: as many doublings.
    """

    def __init__(
        self, num_inputs: int, num_channels: int, side: int, *, width: int, num_blocks: int, num_halvings: int
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(num_inputs, width, 3, padding=1)
        self.attention = SpatialAttention(width)
        self.tower = UpTower(width, num_channels, side, num_halvings=num_halvings, num_blocks=num_blocks)

    @property
    def last_weight(self) -> Tensor:
        """Weight of the last layer, at which Eq. 7 compares gradients."""
        return self.tower.head.conv.weight

    def forward(self, features: Tensor) -> Tensor:
        """Images before any rounding, float32."""
        images: Tensor = self.tower(self.attention(self.stem(features)))
        return images.float()


class Critic(nn.Module):
    """What is wrong with a reconstruction: its pixels, its looks and the verdict of a discriminator.

    Args:
        num_channels: of the images.
        side: of the images.
        width: of the discriminator's first layer.
        perceptual: d, the mean L1 distance of the discriminator's activations, or `lpips`.
        perceptual_weight: of d beside the mean L1 distance of pixels.
        adversarial_weight: of the verdict, in units of the gradient of the rest.
    """

    def __init__(
        self,
        num_channels: int,
        side: int,
        *,
        width: int,
        perceptual: Perceptual,
        perceptual_weight: float,
        adversarial_weight: float,
    ) -> None:
        super().__init__()
        self.perceptual = perceptual
        self.perceptual_weight, self.adversarial_weight = perceptual_weight, adversarial_weight
        self.discriminator = PatchDiscriminator(num_channels, side, width=width)
        self._judge: list[PerceptualDistance] = []
        """The published network, outside of the modules: it is no part of the model's weights."""

    def prepare(self, device: torch.device) -> None:
        """Find the network that judges looks.

        Raises:
            DataError: the weights of LPIPS are not there.
        """
        if self.perceptual == "lpips":
            network = build_features(parse_ref("lpips[net=vgg]")).to(device)
            self._judge = [cast("PerceptualDistance", network)]

    def forward(
        self, real: Tensor, fake: Tensor, *, last_weight: Tensor, adversarial: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What a reconstruction is to lower, a scalar, and its parts.

        Args:
            real: (B, C, H, W) in [-1, 1].
            fake: the same shape, with gradient.
            last_weight: of the decoder.
            adversarial: whether the discriminator has a say.
        """
        pixels, judged = (real - fake).abs().mean(), self.discriminator.features(fake)
        perceptual = self._distance(real, fake, judged)
        total = pixels + self.perceptual_weight * perceptual
        parts = {"pixels": pixels, "perceptual": perceptual}
        if adversarial:
            verdict = -self.discriminator.logits(judged).mean()
            weight = self.adversarial_weight * relative_weight(total, verdict, at=last_weight)
            total = total + weight * verdict
            parts |= {"verdict": verdict, "weight": weight}
        return total, parts

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Loss:
        """Hinge between patches of real images and of reconstructions without gradient."""
        logits, logits_of_fake = self.discriminator(real), self.discriminator(fake)
        total = hinge(logits, logits_of_fake)
        return Loss(total, {"real": logits.mean().detach(), "fake": logits_of_fake.mean().detach()})

    def _distance(self, real: Tensor, fake: Tensor, judged: list[Tensor]) -> Tensor:
        """Mean perceptual distance of reconstructions: scalar."""
        if self.perceptual == "discriminator":
            with torch.no_grad():
                expected = self.discriminator.features(real)
            distances = [F.l1_loss(found, wanted) for found, wanted in zip(judged, expected, strict=True)]
            return torch.stack(distances).mean()
        if self.perceptual == "lpips":
            if not self._judge:
                raise RuntimeError("`prepare` has not run: it finds the network of `perceptual=lpips`")
            return self._judge[0].signed_distances(_coloured(real), _coloured(fake)).mean()
        return real.new_zeros(())


def relative_weight(loss: Tensor, verdict: Tensor, *, at: Tensor) -> Tensor:
    """Eq. 7: how many times stronger one scalar's gradient is than another's, at one weight; a constant scalar."""
    (slope,) = torch.autograd.grad(loss, at, retain_graph=True)
    (slope_of_verdict,) = torch.autograd.grad(verdict, at, retain_graph=True)
    weight: Tensor = slope.norm() / (slope_of_verdict.norm() + LEAST_SLOPE)
    return weight.clamp(max=LARGEST_WEIGHT).detach()


def hinge(logits: Tensor, logits_of_fake: Tensor) -> Tensor:
    """Half of E max(0, 1 - D(x)) + E max(0, 1 + D(x^)): scalar, 0 once all logits have passed their margins."""
    return 0.5 * (F.relu(1.0 - logits).mean() + F.relu(1.0 + logits_of_fake).mean())


def player(
    name: str,
    *modules: nn.Module,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    ema_decay: float | None = None,
) -> Player:
    """A player with the warm-up and cosine that all phases of such models share."""
    return Player(
        name=name,
        modules=modules,
        lr=lr,
        betas=betas,
        clip_norm=1.0,
        warmup_steps=20,
        final_lr_share=0.05,
        ema_decay=ema_decay,
    )


def _coloured(images: Tensor) -> Tensor:
    """Images of one or three channels as (B, 3, H, W)."""
    return images.expand(-1, 3, -1, -1)
