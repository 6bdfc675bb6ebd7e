"""Differentiable augmentation of real and generated images alike: Zhao et al. 2020 (2006.10738), DiffAugment.

A discriminator that sees T(x) and T(G(z)) alone cannot tell the data by heart, and since T is differentiable the
generator is trained through it: matched laws of T(x) stand for matched laws of x. Each example has a T of its own.

- colour: brightness  x + b,  b ~ U[-0.5, 0.5];  saturation  m + s (x - m) about the mean m over channels, s ~ U[0, 2];
  contrast  m + c (x - m) about the mean over the image, c ~ U[0.5, 1.5].
- translation: by whole pixels up to an eighth of either side; what comes in is zero, the middle of the scale.
- cutout: a square of half the side, anywhere, set to zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHTNESS = 0.5
SATURATION = 1.0
CONTRAST = 0.5
"""Greatest changes of each (Sec. 4 of 2006.10738, as the authors have them)."""
SHIFT_SHARE = 1 / 8
"""Greatest shift, of the side."""
CUTOUT_SHARE = 1 / 2
"""Side of the square, of the image's."""


def augmented(x: Tensor, policy: str) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] under transformations drawn from the global stream: the same shape.

    Args:
        x: gradients pass to it, and gradients of these.
        policy: names joined by `+`, done in that order; empty changes nothing.
    """
    for name in policy_parts(policy):
        x = TRANSFORMATIONS[name](x)
    return x


def policy_parts(policy: str) -> list[str]:
    """Names of a policy.

    Raises:
        ValueError: one is not known.
    """
    names = [name for name in policy.split("+") if name]
    for name in names:
        if name not in TRANSFORMATIONS:
            raise ValueError(f"unknown augmentation {name!r}, expected {', '.join(TRANSFORMATIONS)} joined by `+`")
    return names


def recoloured(x: Tensor) -> Tensor:
    """Brightness, saturation and contrast, one of each for an example."""
    b, s, c = (2 * torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype) - 1).unbind()
    x = x + BRIGHTNESS * b
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey, x, 1 + SATURATION * s)
    return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, 1 + CONTRAST * c)


def translated(x: Tensor) -> Tensor:
    """Whole pixels along both axes, drawn for each example."""
    height, width = x.shape[2:]
    down, right = _shifts(x, height), _shifts(x, width)
    pad = (_greatest(width), _greatest(width), _greatest(height), _greatest(height))
    rows = torch.arange(height, device=x.device) + pad[2] - down[:, None]  # (B, H)
    columns = torch.arange(width, device=x.device) + pad[0] - right[:, None]  # (B, W)
    wide = F.pad(x, pad).permute(0, 2, 3, 1)  # (B, H', W', C)
    examples = torch.arange(len(x), device=x.device)[:, None, None]
    return wide[examples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(x: Tensor) -> Tensor:
    """A square set to zero, whose middle may be anywhere; it is cut off at the edges."""
    height, width = x.shape[2:]
    inside = []
    for side in (height, width):
        hole = int(side * CUTOUT_SHARE + 0.5)
        first = torch.randint(0, side + (1 - hole % 2), (len(x), 1), device=x.device) - hole // 2
        places = torch.arange(side, device=x.device)
        inside.append((places >= first) & (places < first + hole))  # (B, side)
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x * (~hidden).to(x.dtype)


TRANSFORMATIONS = {"color": recoloured, "translation": translated, "cutout": cut_out}


def _greatest(side: int) -> int:
    return int(side * SHIFT_SHARE + 0.5)


def _shifts(x: Tensor, side: int) -> Tensor:
    greatest = _greatest(side)
    return torch.randint(-greatest, greatest + 1, (len(x),), device=x.device)
