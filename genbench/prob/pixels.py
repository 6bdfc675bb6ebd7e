"""Integers to floats and back: the one place where pixels are scaled."""

from __future__ import annotations

import torch
from torch import Tensor


def to_signed(x: Tensor, levels: int) -> Tensor:
    """Integers 0 .. levels-1 as float32 in [-1, 1]: level k becomes 2k/(levels-1) - 1."""
    return x.float() * (2.0 / (levels - 1)) - 1.0


def to_uint8(x: Tensor, levels: int) -> Tensor:
    """Floats in [-1, 1] as the nearest of the integers 0 .. levels-1; values outside are clamped."""
    return ((x + 1.0) * ((levels - 1) / 2.0)).round().clamp(0, levels - 1).to(torch.uint8)


def to_display(x: Tensor, levels: int) -> Tensor:
    """Integers 0 .. levels-1 as uint8 in 0 .. 255, for feature extractors and pictures."""
    return x if levels == 256 else (x.float() * (255.0 / (levels - 1))).round().to(torch.uint8)


def to_rgb(x: Tensor, levels: int) -> Tensor:
    """Images (N, 1 or 3, H, W) as (N, 3, H, W) uint8 in 0 .. 255; grey is repeated."""
    shown = to_display(x, levels)
    return shown.expand(-1, 3, -1, -1) if shown.shape[1] == 1 else shown
