"""Residual convolutional blocks, and the towers that take an image to a small grid and back.

The blocks hold no normalisation: each residual branch ends in a convolution that starts small, so a deep
stack starts near the identity and trains without it (Zhang et al., 2019, 1901.09321), and the same blocks
serve critics whose gradient penalty forbids batch statistics. The first halving of a tower is a
pixel-unshuffle rather than a convolution at full resolution, which on a CPU would cost more than all
the rest of it.

A side that is odd is rounded up when halved and cut back when doubled, so that 28 px run as
28, 14, 7, 4, 7, 14, 28.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

BRANCH_GAIN = 0.1  # of the last convolution at the start; at zero the one before it would get no gradient


class ResidualBlock(nn.Module):
    """h + conv(act(conv(act(h)))) with the shape (B, C, H, W) of its input; near the identity at the start."""

    def __init__(self, num_channels: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = num_channels if hidden is None else hidden
        self.first = nn.Conv2d(num_channels, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, num_channels, 3, padding=1)
        for parameter in self.last.parameters():
            parameter.data.mul_(BRANCH_GAIN)

    def forward(self, h: Tensor) -> Tensor:
        """Transform (B, C, H, W)."""
        branch: Tensor = self.last(F.silu(self.first(F.silu(h))))
        return h + branch


class Halve(nn.Module):
    """(B, in, H, W) to (B, out, ceil(H/2), ceil(W/2)): pixels of a 2x2 patch become channels, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, h: Tensor) -> Tensor:
        """Halve both sides; an odd side is padded by repeating its last pixel."""
        odd_height, odd_width = h.shape[2] % 2, h.shape[3] % 2
        if odd_height or odd_width:
            h = F.pad(h, (0, odd_width, 0, odd_height), mode="replicate")
        halved: Tensor = self.conv(F.pixel_unshuffle(h, 2))
        return halved


class Double(nn.Module):
    """(B, in, ceil(side/2), ceil(side/2)) to (B, out, side, side): a convolution, then channels become 2x2 patches."""

    def __init__(self, in_channels: int, out_channels: int, side: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.side = side
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, h: Tensor) -> Tensor:
        """Double both sides; what exceeds an odd side is cut off."""
        return F.pixel_shuffle(self.conv(h), 2)[:, :, : self.side, : self.side]


class DownTower(nn.Module):
    """Image (B, in, side, side) to features (B, width, s, s) with s the last of `halved_sides`.

    Args:
        in_channels: channels of the image.
        width: channels of every grid.
        num_halvings: at least 1.
        num_blocks: residual blocks on each grid.
    """

    def __init__(self, in_channels: int, width: int, *, num_halvings: int, num_blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in range(num_halvings):
            layers.append(Halve(in_channels if level == 0 else width, width))
            layers.extend(ResidualBlock(width) for _ in range(num_blocks))
        self.layers = cast("Sequence[nn.Module]", nn.ModuleList(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Features of images: (B, width, s, s), after the activation."""
        for layer in self.layers:
            x = layer(x)
        return F.silu(x)


class UpTower(nn.Module):
    """Features (B, width, s, s) to (B, out, side, side), with s the last of `halved_sides`.

    Args:
        width: channels of every grid.
        out_channels: channels at the full side.
        side: full side.
        num_halvings: at least 1; as many doublings.
        num_blocks: residual blocks on each grid but the full one.
    """

    def __init__(self, width: int, out_channels: int, side: int, *, num_halvings: int, num_blocks: int) -> None:
        super().__init__()
        sides = halved_sides(side, num_halvings)
        layers: list[nn.Module] = []
        for level in reversed(range(num_halvings)):
            layers.extend(ResidualBlock(width) for _ in range(num_blocks))
            if level > 0:
                layers.append(Double(width, width, sides[level]))
        self.layers = cast("Sequence[nn.Module]", nn.ModuleList(layers))
        self.head = Double(width, out_channels, side)

    def forward(self, h: Tensor) -> Tensor:
        """Grid at the full side: (B, out, side, side)."""
        for layer in self.layers:
            h = layer(h)
        grid: Tensor = self.head(F.silu(h))
        return grid


def halved_sides(side: int, num_halvings: int) -> list[int]:
    """Sides of the grids from the full one down, `num_halvings + 1` of them: 28 gives 28, 14, 7, 4, ..."""
    sides = [side]
    for _ in range(num_halvings):
        sides.append((sides[-1] + 1) // 2)
    return sides


def halvings_until(side: int, smallest: int) -> int:
    """Halvings, at least one, after which the side is no longer above `smallest`."""
    num_halvings = 1
    while halved_sides(side, num_halvings)[-1] > smallest:
        num_halvings += 1
    return num_halvings
