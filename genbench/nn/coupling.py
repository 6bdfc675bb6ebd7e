"""Affine coupling and the re-orderings of pixels around it: the bijections of RealNVP.

Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2016, arXiv:1605.08803, Sec. 3.2-3.6.

Legend: `mask` is 1 where the input passes unchanged (`b` in Eq. 9), `s` log-scale, `t` shift.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AffineCoupling(nn.Module):
    """`y = x` where the mask is 1, else `y = x exp(s) + t` with `s, t` computed from the masked input (Eq. 9).

    The log-scale is `s = bound * tanh(raw)` with a learned `bound` per channel (Sec. 4.1), so that no single step can
    stretch a coordinate without limit.

    Args:
        mask: zeros and ones, of a shape that broadcasts with one example: (D,), (C, 1, 1) or (1, H, W).
        num_channels: size of axis 1 of the input.
        conditioner: network from the masked input (B, C, ...) to (B, 2C, ...): the raw log-scale, then the shift.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, num_channels: int, conditioner: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.bound = nn.Parameter(torch.ones(num_channels, *(1,) * (mask.ndim - 1)))
        self.conditioner = conditioner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coupled input and the log-determinant of each example: (B, C, ...) and (B,)."""
        s, t = self._scale_and_shift(x)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Input whose coupled form is `y`: (B, C, ...); costs one call of the conditioner, as `forward` does."""
        s, t = self._scale_and_shift(y)
        return (y - t) * (-s).exp()

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = self.conditioner(x * self.mask).chunk(2, dim=1)
        changed = 1.0 - self.mask
        return changed * self.bound * raw.tanh(), changed * t


def checkerboard_mask(height: int, width: int, parity: int) -> Tensor:
    """Ones where row + column + parity is even: (1, H, W)."""
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    return ((rows + columns + parity) % 2 == 0).float()


def channel_mask(num_channels: int, parity: int) -> Tensor:
    """Ones on the first half of the channels for parity 0, on the second half for parity 1: (C, 1, 1)."""
    first = torch.arange(num_channels).view(-1, 1, 1) < num_channels // 2
    return (first if parity == 0 else ~first).float()


def squeeze(x: Tensor) -> Tensor:
    """Every 2x2 block of pixels as channels: (B, C, H, W) -> (B, 4C, H/2, W/2).

    Channels run over the positions of a block first (top left, top right, bottom left, bottom right) and over the
    colours last, so that a split of the channels never tears the colours of a pixel apart.
    """
    B, C, H, W = x.shape
    blocks = x.view(B, C, H // 2, 2, W // 2, 2)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(B, 4 * C, H // 2, W // 2)


def unsqueeze(x: Tensor) -> Tensor:
    """Inverse of `squeeze`: (B, 4C, H, W) -> (B, C, 2H, 2W)."""
    B, C4, H, W = x.shape
    blocks = x.view(B, 2, 2, C4 // 4, H, W)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(B, C4 // 4, 2 * H, 2 * W)


def factor_out(x: Tensor) -> tuple[Tensor, Tensor]:
    """Halves of a squeezed tensor, one per diagonal of the 2x2 blocks (Fig. 3): what leaves, and what goes on.

    Each is (B, C/2, H, W). A diagonal is one colour of the checkerboard, so both halves see the whole picture.
    """
    top_left, top_right, bottom_left, bottom_right = x.chunk(4, dim=1)
    return torch.cat([top_right, bottom_left], dim=1), torch.cat([top_left, bottom_right], dim=1)


def factor_in(left: Tensor, kept: Tensor) -> Tensor:
    """Inverse of `factor_out`: (B, C, H, W)."""
    (top_right, bottom_left), (top_left, bottom_right) = left.chunk(2, dim=1), kept.chunk(2, dim=1)
    return torch.cat([top_left, top_right, bottom_left, bottom_right], dim=1)
