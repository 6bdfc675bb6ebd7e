"""Networks that give an example one number, or a few: energies of images and of vectors, smooth in their input.

Nothing couples the examples of a batch, and every activation is SiLU, so that slopes and their slopes exist everywhere.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_GRID = 2
"""Blocks halve the grid as long as its side stays at least this."""


class DownBlock(nn.Module):
    """Residual block that halves the grid in its first convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 4, 2, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H // 2, W // 2)."""
        h: Tensor = self.conv2(F.silu(self.conv1(F.silu(x))))
        skip: Tensor = self.skip(F.avg_pool2d(x, 2))
        return h + skip


class EnergyNet(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to outputs (B, K), summed over the last grid.

    Args:
        shape: (C, H, W) of an image.
        channels: width at the largest grid; it doubles with each halving.
        max_channels: of any grid.
        fold: side of the pixel blocks folded into channels; 1 where it does not divide the sides.
        num_outputs: K.
        bias: of the last layer; no difference of energies sees the constant of one.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        channels: int,
        max_channels: int,
        fold: int,
        num_outputs: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        fold = fold if shape[-1] % fold == 0 else 1
        side, width = shape[-1] // fold, channels
        layers: list[nn.Module] = [nn.PixelUnshuffle(fold), nn.Conv2d(shape[0] * fold**2, width, 3, padding=1)]
        while side >= 2 * SMALLEST_GRID:
            wider = min(2 * width, max_channels)
            layers += [DownBlock(width, wider)]
            side, width = side // 2, wider
        self.body = nn.Sequential(*layers, nn.SiLU())
        self.head = nn.Linear(width, num_outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K)."""
        outputs: Tensor = self.head(self.body(x).sum(dim=(2, 3)))
        return outputs


class EnergyMLP(nn.Sequential):
    """Vectors (B, D) to outputs (B, K) by `num_layers` hidden layers; arguments as those of `EnergyNet`.

    Hidden weights start as He et al. 2015 (arXiv:1502.01852) have them: from PyTorch's, which are smaller, eight modes
    on a circle stay a ring for a thousand steps.
    """

    def __init__(self, num_dims: int, *, width: int, num_layers: int, num_outputs: int = 1, bias: bool = True) -> None:
        layers: list[nn.Module] = [nn.Linear(num_dims, width), nn.SiLU()]
        for _ in range(num_layers - 1):
            layers += [nn.Linear(width, width), nn.SiLU()]
        for layer in layers[::2]:
            nn.init.kaiming_normal_(cast("nn.Linear", layer).weight, nonlinearity="relu")
            nn.init.zeros_(cast("nn.Linear", layer).bias)
        super().__init__(*layers, nn.Linear(width, num_outputs, bias=bias))
