"""Pillow's bicubic resize of 8-bit pictures to the last bit, on any device and whatever Pillow is installed.

Rows come before columns, as in every Pillow below 13, with which the scores in print were made. Pillow 13 turns the
order round for pictures whose height shrinks much more than their width, and gives other bits there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.features._resize import bicubic_weights

FRACTION_BITS = 22  # Pillow keeps 32 bits for a weighted sum: 8 for the value, 2 for overshoot, the rest for weights


def pillow_bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Pictures (N, C, H, W) uint8 at (N, C, height, width), as `PIL.Image.resize` with `BICUBIC` makes them: uint8.

    Weights are rounded to fixed point and the result of each pass to 8 bits. Sums stay below 2^53, so float64
    products are exact.
    """
    x = images.double()
    if images.shape[-1] != width:
        x = _rounded(x @ _weights(images.shape[-1], width, images.device).T)
    if images.shape[-2] != height:
        x = _rounded(_weights(images.shape[-2], height, images.device) @ x)
    return x.to(torch.uint8)


def crop_to_square(images: Tensor, side: int) -> Tensor:
    """Shorter side to `side` by `pillow_bicubic`, then the middle: (N, C, side, side) uint8.

    The longer side is cut down to a whole number of pixels, and the crop's corner rounds half to even, as in
    torchvision's `Resize` and `CenterCrop`.
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    size = (int(side * height / short), int(side * width / short))
    resized = pillow_bicubic(images, *size)
    top, left = (round((length - side) / 2.0) for length in size)
    return resized[..., top : top + side, left : left + side]


def _weights(size: int, side: int, device: torch.device) -> Tensor:
    exact = bicubic_weights(size, side, dtype=torch.float64) * 2.0**FRACTION_BITS
    return (exact.abs() + 0.5).floor().copysign(exact).to(device)


def _rounded(sums: Tensor) -> Tensor:
    return ((sums + 2.0 ** (FRACTION_BITS - 1)) * 2.0**-FRACTION_BITS).floor().clamp(0.0, 255.0)
