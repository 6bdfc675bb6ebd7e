"""Generative adversarial network that descends the Wasserstein-1 distance, with a gradient penalty.

Title: Improved Training of Wasserstein GANs. Authors: Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville. Year: 2017.
arXiv: 1704.00028; the distance and the game are those of Arjovsky, Chintala, Bottou 2017 (1701.07875).

Idea: by Kantorovich-Rubinstein duality W_1(p, q) is the supremum of E_p f - E_q f over 1-Lipschitz f, so a critic f
that is trained often gives the generator a distance with useful gradients. A penalty on the norm of the critic's
gradient between real and generated images keeps it near 1-Lipschitz without clipping weights.

Legend: x real image, x_tilde = g(z) generated image, z ~ N(0, I) latent, f critic, g generator,
lambda weight of the penalty.

    critic     minimise  E f(x_tilde) - E f(x) + lambda E (|grad f(x_hat)| - 1)^2      Algorithm 1, line 7
    generator  minimise  -E f(g(z))                                                    Algorithm 1, line 12

Departures: the learning rate falls along a cosine, not a line. Samples come from an exponential average of the
generator's weights. The generator's batch is as large as the critic's, not twice. Grids start from the side that
halving leaves between 4 and 7 (7 for 28 pixels); the critic halves once less often than the generator doubles, but at
least once, which is the paper's residual network at 32 pixels. `smoke` and `small` use strided convolutions in the
manner of DCGAN (the paper's other networks) on blocks of 2 x 2 pixels folded into channels, with fewer turns of the
critic and a larger learning rate (and in `small` a smaller batch), which a CPU can afford.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share
from genbench.prob.gradient_penalty import gradient_penalty
from genbench.prob.pixels import to_signed, to_uint8

SMALLEST_GRID = 4
"""The generator's first grid has at least this side (appendix F)."""
FOLD = 2
"""Side of the pixel blocks that the strided networks fold into channels, which makes their largest grid affordable."""
SLOPE = 0.2
"""Of the leaky ReLU, as in DCGAN (1511.06434), Sec. 4."""
BETAS = (0.0, 0.9)
"""Adam without momentum (Algorithm 1)."""


class UpBlock(nn.Module):
    """Residual block of the generator that doubles the side by repeating pixels (appendix F)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(channels, channels, 1)
        self.enlarge = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        h: Tensor = self.conv1(self.enlarge(F.relu(self.norm1(x))))
        h = self.conv2(F.relu(self.norm2(h)))
        # A 1 x 1 convolution commutes with repeating pixels and is cheaper before it.
        skip: Tensor = self.enlarge(self.skip(x))
        return h + skip


class DownBlock(nn.Module):
    """Residual block of the critic, `scale` times smaller at its end; no norm may couple the batch (Sec. 4)."""

    def __init__(self, channels: int, *, scale: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(channels, channels, 1) if scale > 1 else nn.Identity()
        self.shrink = nn.AvgPool2d(scale) if scale > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / scale, W / scale)."""
        h: Tensor = self.shrink(self.conv2(F.relu(self.conv1(F.relu(x)))))
        skip: Tensor = self.skip(self.shrink(x))
        return h + skip


class ResidualGenerator(nn.Sequential):
    """Latents (B, Z) to images (B, C, H, W) in [-1, 1] by residual blocks (appendix F)."""

    def __init__(self, shape: tuple[int, ...], *, latent_dim: int, channels: int) -> None:
        side, num_doublings = _grids(shape[-1])
        super().__init__(
            nn.Linear(latent_dim, channels * side**2),
            nn.Unflatten(1, (channels, side, side)),
            *(UpBlock(channels) for _ in range(num_doublings)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, shape[0], 3, padding=1),
            nn.Tanh(),
        )


class ResidualCritic(nn.Sequential):
    """Images (B, C, H, W) in [-1, 1] to scores (B,), larger for real ones, by residual blocks (appendix F)."""

    def __init__(self, shape: tuple[int, ...], *, channels: int) -> None:
        num_halvings = max(1, _grids(shape[-1])[1] - 1)
        super().__init__(
            nn.Conv2d(shape[0], channels, 3, padding=1),
            *(DownBlock(channels, scale=2) for _ in range(num_halvings)),
            *(DownBlock(channels, scale=1) for _ in range(2)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 1, bias=False),  # a constant cancels in every loss
            nn.Flatten(0),
        )


class StridedGenerator(nn.Sequential):
    """Latents (B, Z) to images (B, C, H, W) in [-1, 1] by transposed convolutions; the last layer unfolds blocks."""

    def __init__(self, shape: tuple[int, ...], *, latent_dim: int, channels: int) -> None:
        side, num_doublings = _grids(shape[-1] // FOLD)
        widths = [channels * 2**i for i in reversed(range(num_doublings + 1))]
        first = nn.Linear(latent_dim, widths[0] * side**2)
        layers = [first, nn.Unflatten(1, (widths[0], side, side)), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        head = nn.Conv2d(channels, shape[0] * FOLD**2, 3, padding=1)
        super().__init__(*layers, head, nn.PixelShuffle(FOLD), nn.Tanh())


class StridedCritic(nn.Sequential):
    """Images (B, C, H, W) in [-1, 1] to scores (B,) by strided convolutions; the first layer folds blocks."""

    def __init__(self, shape: tuple[int, ...], *, channels: int) -> None:
        side, width = shape[-1] // FOLD, channels
        layers = [nn.PixelUnshuffle(FOLD), nn.Conv2d(shape[0] * FOLD**2, width, 3, padding=1), nn.LeakyReLU(SLOPE)]
        while side >= SMALLEST_GRID:
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
            side, width = side // 2, 2 * width
        super().__init__(*layers, nn.Flatten(), nn.Linear(width * side**2, 1, bias=False), nn.Flatten(0))


NETWORKS = {"residual": (ResidualGenerator, ResidualCritic), "strided": (StridedGenerator, StridedCritic)}


@register_model("wgan_gp")
class WGANGP(GenerativeModel):
    """Wasserstein GAN with gradient penalty; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        networks: Literal["residual", "strided"] = "residual"
        latent_dim: Count = 128
        channels: Count = 128
        """Width of the generator at its largest grid."""
        critic_channels: Count = 128
        """Width of the critic at its largest grid."""
        penalty_weight: NonNegative = 10.0
        """lambda (Algorithm 1)."""
        critic_turns: Count = 5
        """Steps of the critic for each one of the generator (n_critic of Algorithm 1)."""
        lr: Positive = 2e-4
        final_lr_share: Share = 0.0
        ema_decay: Fraction = 0.999
        """Of the generator's weights."""
        batch_size: Count = 64

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            networks="strided", latent_dim=32, channels=48, critic_channels=24, critic_turns=2, lr=1e-3, ema_decay=0.98
        ),
        "small": Config(
            networks="strided",
            latent_dim=64,
            channels=64,
            critic_channels=32,
            critic_turns=3,
            lr=1e-3,
            ema_decay=0.99,
            batch_size=32,
        ),
        "paper": Config(),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.levels is None:
            raise ValueError(f"`wgan_gp` generates integer images, found float data of shape {spec.shape}")
        self.config = config
        self.levels = spec.levels
        generator, critic = NETWORKS[config.networks]
        self.generator = generator(spec.shape, latent_dim=config.latent_dim, channels=config.channels)
        self.critic = critic(spec.shape, channels=config.critic_channels)

    def phases(self) -> tuple[Phase, ...]:
        """One phase: several turns of the critic, then one of the generator."""
        config = self.config
        critic = Player(
            name="critic",
            modules=(self.critic,),
            lr=config.lr,
            betas=BETAS,
            turns=config.critic_turns,
            final_lr_share=config.final_lr_share,
        )
        generator = dataclasses.replace(
            critic, name="generator", modules=(self.generator,), turns=1, ema_decay=config.ema_decay
        )
        return (Phase(name="adversarial", share=1.0, players=(critic, generator), batch_size=config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `critic` or of `generator`; the latter takes from the batch only its size."""
        if player == "critic":
            return self._critic_loss(to_signed(batch.x, self.levels))
        return self._generator_loss(len(batch))

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw by one pass of the generator: (N, C, H, W), uint8."""
        with torch.no_grad():
            return to_uint8(self.generator(self._latents(num_samples, generator)), self.levels)

    def _critic_loss(self, x: Tensor) -> Loss:
        with torch.no_grad():
            x_tilde = self.generator(self._latents(len(x), None))
        # Real and generated images share a pass: nothing in the critic couples the examples of a batch.
        real, fake = self.critic(torch.cat([x, x_tilde])).chunk(2)
        distance = real.mean() - fake.mean()
        penalty = gradient_penalty(self.critic, x, x_tilde)
        total = self.config.penalty_weight * penalty - distance
        return Loss(total, {"distance": distance.detach(), "penalty": penalty.detach()})

    def _generator_loss(self, num_samples: int) -> Loss:
        # The critic's weights are constants of this loss: gradients pass through it and stay out of it.
        constants = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        x_tilde = self.generator(self._latents(num_samples, None))
        score = torch.func.functional_call(self.critic, constants, (x_tilde,)).mean()
        return Loss(-score, {"score": score.detach()})

    def _latents(self, num_samples: int, generator: Generator | None) -> Tensor:
        device = next(self.generator.parameters()).device
        return torch.randn(num_samples, self.config.latent_dim, generator=generator, device=device)


def _grids(side: int) -> tuple[int, int]:
    """First side of the generator, and how often it doubles to reach `side`."""
    num_doublings = 0
    while side % 2 == 0 and side >= 2 * SMALLEST_GRID:
        side, num_doublings = side // 2, num_doublings + 1
    return side, num_doublings
