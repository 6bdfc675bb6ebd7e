"""A generator and a discriminator of residual blocks with grouped convolutions, the networks of R3GAN.

Huang, Gokaslan, Kuleshov and Tompkin 2024 (2501.05441), Sec. 3: the two mirror each other, a stage for each grid.
Blocks are inverted bottlenecks (1x1 wider, 3x3 in groups, 1x1 back) without any normalisation; what a norm would keep
in check at the start, the initial weights do (fix-up: the last convolution of a branch starts at zero, the others are
scaled down by the number of branches). Grids are halved and doubled by bilinear resampling.

Symbols: `B` images, `C` channels, `L` residual blocks of a network, `s` side of the smallest grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn.gan_networks import SLOPE, halved_grids

LAYERS_OF_A_BRANCH = 3


class ResNeXtBlock(nn.Module):
    """h + conv(act(conv(act(conv(h))))), 1x1, 3x3 in groups, 1x1: the identity at the start.

    Args:
        channels: C.
        expansion: width of the 3x3 convolution for each of C.
        group_size: channels of one of its groups; a narrower convolution is one group.
        num_branches: L, which scales the initial weights by L^(-1 / (2 m - 2)) with m = 3 layers (fix-up, 1901.09321).
    """

    def __init__(self, channels: int, *, expansion: int, group_size: int, num_branches: int) -> None:
        super().__init__()
        width = expansion * channels
        self.widen = nn.Conv2d(channels, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=num_groups(width, group_size))
        self.narrow = nn.Conv2d(width, channels, 1, bias=False)
        for layer in (self.widen, self.mix):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            layer.weight.data.mul_(num_branches ** (-1 / (2 * LAYERS_OF_A_BRANCH - 2)))
        nn.init.zeros_(self.narrow.weight)

    def forward(self, h: Tensor) -> Tensor:
        """Transform (B, C, H, W)."""
        branch: Tensor = F.leaky_relu(self.mix(F.leaky_relu(self.widen(h), SLOPE)), SLOPE)
        change: Tensor = self.narrow(branch)
        return h + change


class BilinearDouble(nn.Module):
    """(B, in, H, W) to (B, out, 2H, 2W): channels by a 1x1 convolution where they change, then bilinear resampling."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.recolour = _pointwise(before, after)

    def forward(self, h: Tensor) -> Tensor:
        """Double both sides."""
        return F.interpolate(self.recolour(h), scale_factor=2.0, mode="bilinear", align_corners=False)


class BilinearHalve(nn.Module):
    """(B, in, 2H, 2W) to (B, out, H, W): bilinear resampling, then channels by a 1x1 convolution where they change."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.recolour = _pointwise(before, after)

    def forward(self, h: Tensor) -> Tensor:
        """Halve both sides; half-way between pixels a bilinear reading is the mean of four."""
        halved: Tensor = self.recolour(F.avg_pool2d(h, 2))
        return halved


class LearnedGrid(nn.Module):
    """Latents (B, Z) to a first grid (B, C, s, s): learned maps, each scaled by a linear reading of the latent."""

    def __init__(self, latent_dim: int, channels: int, side: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(channels, side, side))
        self.scale = nn.Linear(latent_dim, channels)
        nn.init.normal_(self.scale.weight, std=latent_dim**-0.5)
        nn.init.zeros_(self.scale.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Scale the maps."""
        scales: Tensor = self.scale(z)
        return self.maps * scales[:, :, None, None]


class ResNeXtGenerator(nn.Sequential):
    """Latents (B, Z) to images (B, C, H, W), unbounded.

    Args:
        shape: (C, H, W) of an image; its grids are those of `gan_networks`.
        latent_dim: Z.
        channels: of the largest grid; each halving doubles them.
        max_channels: of any grid.
        blocks: residual blocks on each grid.
        expansion: of each, see `ResNeXtBlock`.
        group_size: the same.
        fold: side of the pixel blocks that the last layer unfolds; 1 where it does not divide the sides.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int,
        channels: int,
        max_channels: int,
        blocks: int,
        expansion: int,
        group_size: int,
        fold: int,
    ) -> None:
        fold = _folded(shape, fold)
        side, widths = _stages(shape[-1] // fold, channels, max_channels)
        layers: list[nn.Module] = []
        for width, wider in zip(widths, [*widths[1:], None], strict=True):
            stage: list[nn.Module] = [
                ResNeXtBlock(width, expansion=expansion, group_size=group_size, num_branches=blocks * len(widths))
                for _ in range(blocks)
            ]
            layers = [*([] if wider is None else [BilinearDouble(wider, width)]), *stage, *layers]
        first = LearnedGrid(latent_dim, widths[-1], side)
        super().__init__(first, *layers, _linear(widths[0], shape[0] * fold**2), nn.PixelShuffle(fold))


class ResNeXtDiscriminator(nn.Sequential):
    """Images (B, C, H, W) to scores (B,); arguments as those of `ResNeXtGenerator`, which it mirrors.

    The last grid is read by a depthwise convolution over all of it, and a linear layer. No constant is added to the
    scores: it would cancel between pairs.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        channels: int,
        max_channels: int,
        blocks: int,
        expansion: int,
        group_size: int,
        fold: int,
    ) -> None:
        fold = _folded(shape, fold)
        side, widths = _stages(shape[-1] // fold, channels, max_channels)
        layers: list[nn.Module] = [nn.PixelUnshuffle(fold), _linear(shape[0] * fold**2, widths[0])]
        for width, wider in zip(widths, [*widths[1:], None], strict=True):
            layers += [
                ResNeXtBlock(width, expansion=expansion, group_size=group_size, num_branches=blocks * len(widths))
                for _ in range(blocks)
            ]
            layers += [] if wider is None else [BilinearHalve(width, wider)]
        reading = nn.Conv2d(widths[-1], widths[-1], side, groups=widths[-1], bias=False)
        nn.init.kaiming_normal_(reading.weight, nonlinearity="linear")
        last = nn.Linear(widths[-1], 1, bias=False)
        nn.init.kaiming_normal_(last.weight, nonlinearity="linear")
        super().__init__(*layers, reading, nn.Flatten(), last, nn.Flatten(0))


def num_groups(width: int, group_size: int) -> int:
    """Groups of a convolution of `width` channels: as many as have `group_size` channels each, or else one."""
    return width // group_size if width % group_size == 0 else 1


def _stages(side: int, channels: int, max_channels: int) -> tuple[int, list[int]]:
    """Side of the smallest grid, and channels of all grids from the largest on."""
    smallest, num_halvings = halved_grids(side)
    return smallest, [min(channels * 2**i, max_channels) for i in range(num_halvings + 1)]


def _folded(shape: tuple[int, ...], fold: int) -> int:
    return fold if shape[-1] % fold == 0 else 1


def _pointwise(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else _linear(before, after)


def _linear(before: int, after: int) -> nn.Conv2d:
    """A 1x1 convolution that keeps the scale of what it reads."""
    layer = nn.Conv2d(before, after, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return layer
