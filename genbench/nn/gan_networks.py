"""Generators and critics that adversaries share: residual or strided convolutions for images, MLPs for vectors.

The residual ones are those of Gulrajani et al. 2017 (arXiv:1704.00028), appendix F, the strided ones in the manner of
DCGAN (arXiv:1511.06434) on blocks of 2 x 2 pixels folded into channels, the MLPs those of Gulrajani et al. for points
of the plane. Generators end at the side asked for: grids start from the side that halving leaves between 4 and 7.
No critic couples the examples of a batch.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_GRID = 4
"""The generator's first grid has at least this side (appendix F)."""
FOLD = 2
"""Side of the pixel blocks that the strided networks fold into channels, which makes their largest grid affordable."""
SLOPE = 0.2
"""Of the leaky ReLU, as in DCGAN (1511.06434), Sec. 4."""


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
        side, num_doublings = halved_grids(shape[-1])
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
    """Images (B, C, H, W) in [-1, 1] to scores (B,), or (B, K) of several, by residual blocks (appendix F)."""

    def __init__(self, shape: tuple[int, ...], *, channels: int, num_outputs: int = 1) -> None:
        num_halvings = max(1, halved_grids(shape[-1])[1] - 1)
        super().__init__(
            nn.Conv2d(shape[0], channels, 3, padding=1),
            *(DownBlock(channels, scale=2) for _ in range(num_halvings)),
            *(DownBlock(channels, scale=1) for _ in range(2)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            *_scores(channels, num_outputs),
        )


class StridedGenerator(nn.Sequential):
    """Latents (B, Z) to images (B, C, H, W) in [-1, 1] by transposed convolutions; the last layer unfolds blocks."""

    def __init__(self, shape: tuple[int, ...], *, latent_dim: int, channels: int) -> None:
        side, num_doublings = halved_grids(shape[-1] // FOLD)
        widths = [channels * 2**i for i in reversed(range(num_doublings + 1))]
        first = nn.Linear(latent_dim, widths[0] * side**2)
        layers = [first, nn.Unflatten(1, (widths[0], side, side)), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        head = nn.Conv2d(channels, shape[0] * FOLD**2, 3, padding=1)
        super().__init__(*layers, head, nn.PixelShuffle(FOLD), nn.Tanh())


class StridedCritic(nn.Sequential):
    """Images (B, C, H, W) in [-1, 1] to scores (B,), or (B, K) of several, by strided convolutions on folded blocks."""

    def __init__(self, shape: tuple[int, ...], *, channels: int, num_outputs: int = 1) -> None:
        side, width = shape[-1] // FOLD, channels
        layers = [nn.PixelUnshuffle(FOLD), nn.Conv2d(shape[0] * FOLD**2, width, 3, padding=1), nn.LeakyReLU(SLOPE)]
        while side >= SMALLEST_GRID:
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
            side, width = side // 2, 2 * width
        super().__init__(*layers, nn.Flatten(), *_scores(width * side**2, num_outputs))


class VectorGenerator(nn.Sequential):
    """Latents (B, Z) to vectors (B, D), by three hidden layers."""

    def __init__(self, shape: tuple[int, ...], *, latent_dim: int, channels: int) -> None:
        super().__init__(*_hidden(latent_dim, channels), nn.Linear(channels, shape[0]))


class VectorCritic(nn.Sequential):
    """Vectors (B, D) to scores (B,), or (B, K) of several, by three hidden layers."""

    def __init__(self, shape: tuple[int, ...], *, channels: int, num_outputs: int = 1) -> None:
        super().__init__(*_hidden(shape[0], channels), *_scores(channels, num_outputs))


GENERATORS = {"residual": ResidualGenerator, "strided": StridedGenerator, "mlp": VectorGenerator}
CRITICS = {"residual": ResidualCritic, "strided": StridedCritic, "mlp": VectorCritic}


def _scores(in_dim: int, num_outputs: int) -> list[nn.Module]:
    """The last layers of a critic; a constant cancels in every loss, so there is none."""
    last = nn.Linear(in_dim, num_outputs, bias=False)
    return [last, nn.Flatten(0)] if num_outputs == 1 else [last]


def _hidden(in_dim: int, width: int) -> list[nn.Module]:
    """Three hidden layers, which start as He et al. 2015 (arXiv:1502.01852) have them and as the authors' points do."""
    layers: list[nn.Module] = []
    for size in (in_dim, width, width):
        linear = nn.Linear(size, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return layers


def halved_grids(side: int) -> tuple[int, int]:
    """First side of the generator, and how often it doubles to reach `side`."""
    num_doublings = 0
    while side % 2 == 0 and side >= 2 * SMALLEST_GRID:
        side, num_doublings = side // 2, num_doublings + 1
    return side, num_doublings
