"""Resizing to the side a network sees, in the three ways that published scores use; each is linear in the picture.

The same 32-pixel pictures give another Frechet distance under each, so the way is part of the protocol.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Resize = Literal["tf1", "clean", "legacy"]

KEYS_A = -0.5  # Pillow's cubic kernel; Keys 1981, Eq. 15: the one with third-order accuracy

DESCRIBED: dict[Resize, str] = {
    "tf1": "tf1: bilinear, corner-aligned origin, no antialiasing",
    "clean": "clean: bicubic (a = -0.5), antialiased, clipped to 0 .. 255, not rounded",
    "legacy": "legacy: bilinear, half-pixel centres, no antialiasing",
}
"""What a protocol says of each."""


def resize(images: Tensor, side: int, *, how: Resize, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pictures (N, C, H, W) with values 0 .. 255 at (N, C, side, side), same range, of type `dtype`.

    Raises:
        ValueError: `how` is none of the three.
    """
    ways = {"tf1": resize_tf1, "clean": resize_clean, "legacy": resize_legacy}
    if how not in ways:
        raise ValueError(f"resize is one of {', '.join(ways)}, found `{how}`")
    return ways[how](images, side, dtype=dtype)


def resize_tf1(images: Tensor, side: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """TensorFlow 1's bilinear resize without half-pixel centres: (N, C, H, W) to (N, C, side, side).

    Row i reads input rows floor(s i) and the next one, s = H / side, with weights 1 - f and f, where f is
    the fraction of s i *in float32*, as the graph computes it. The rows are mixed by two look-ups, the
    columns by one matrix product, which beats four look-ups of whole pictures.
    """
    height, width = images.shape[-2:]
    x = images.to(dtype)
    if height != side:
        low, fraction = _tf1_positions(height, side, device=x.device)
        high = (low + 1).clamp_max(height - 1)
        x = torch.lerp(x.index_select(-2, low), x.index_select(-2, high), fraction.to(dtype)[:, None])
    return x if width == side else x @ tf1_weights(width, side, dtype=dtype, device=x.device).T


def tf1_weights(size: int, side: int, *, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Matrix (side, size) of `resize_tf1` along one axis: two weights a row, which sum to one."""
    low, fraction = _tf1_positions(size, side, device=device)
    high = (low + 1).clamp_max(size - 1)
    weights = torch.zeros(side, size, dtype=dtype, device=device)
    row = torch.arange(side, device=device)
    weights[row, low] = 1 - fraction.to(dtype)
    weights[row, high] += fraction.to(dtype)  # the last pixel stands for the one beyond it
    return weights


def _tf1_positions(size: int, side: int, *, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """First input pixel and the fraction of the way to the next, per output pixel: (side,) int64 and float32."""
    position = torch.arange(side, dtype=torch.float32, device=device) * torch.tensor(size / side, dtype=torch.float32)
    low = position.long()
    return low, position - low.float()


def resize_clean(images: Tensor, side: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pillow's antialiased bicubic resize of float pictures, clipped to 0 .. 255: (N, C, side, side).

    Parmar et al. 2022, arXiv:2104.11222: kernel widened by the scale when shrinking, no rounding after.
    """
    height, width = images.shape[-2:]
    x = images.to(dtype)
    if width != side:
        x = x @ bicubic_weights(width, side, dtype=dtype, device=x.device).T
    if height != side:
        x = bicubic_weights(height, side, dtype=dtype, device=x.device) @ x
    return x.clamp(0, 255)


def bicubic_weights(size: int, side: int, *, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Matrix (side, size) of Pillow's bicubic resize along one axis: rows sum to one.

    Output pixel i is centred on c = (i + 1/2) size / side; input pixel j weighs k((j + 1/2 - c) / w) with
    w = max(size / side, 1), over the pixels from int(c - 2w + 1/2) to int(c + 2w + 1/2).
    """
    scale = size / side
    reach = max(scale, 1.0)
    centre = (torch.arange(side, dtype=torch.float64) + 0.5)[:, None] * scale
    pixel = torch.arange(size, dtype=torch.float64)
    within = (pixel >= (centre - 2 * reach + 0.5).trunc()) & (pixel < (centre + 2 * reach + 0.5).trunc())
    weights = torch.where(within, _keys((pixel + 0.5 - centre) / reach), 0.0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(dtype=dtype, device=device)


def _keys(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, zero beyond 2."""
    x = x.abs()
    near = ((KEYS_A + 2) * x - (KEYS_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * KEYS_A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resize_legacy(images: Tensor, side: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """PyTorch's bilinear resize with half-pixel centres and no antialiasing: (N, C, side, side)."""
    return F.interpolate(images.to(dtype), size=(side, side), mode="bilinear", align_corners=False, antialias=False)
