"""Damaged and meaningless pictures, each with a grade, for training feature extractors.

Every function takes pictures (B, 3, H, W) float with values 0 .. 255 and returns pictures of the
same shape. The grade orders damage by how far from real data it should lie: 0 is untouched, 1 is
damage that a viewer sees at once, 4 is a picture without an object, 8 is uniform noise.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.evaluation._damage_kinds import Kind, shared_out


@dataclass(frozen=True)
class Damaged:
    """Pictures after damage; row i of every tensor belongs to picture i."""

    images: Tensor
    """(B, 3, H, W) float32, values 0 .. 255, whole numbers."""
    grade: Tensor
    """(B,) float32."""
    legible: Tensor
    """(B,) bool: the factors can still be read and are to be predicted."""
    meaningless: Tensor
    """(B,) bool: no answer is right, and none is to be given with confidence."""


def damaged(images: Tensor, *, generator: Generator) -> Damaged:
    """Leave about half of the pictures (B, 3, H, W) uint8 as they are and damage the others."""
    return Damaged(
        *shared_out(
            KINDS,
            images,
            generator=generator,
            opened=Tensor.float,
            closed=lambda picture: picture.round().clamp(0, 255),
        )
    )


def untouched(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the pictures themselves, grade 0."""
    return x, torch.zeros(len(x))


def grain(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Gaussian noise of 2 to 50 levels, grade up to 1.25."""
    sigma = _uniform(len(x), 2.0, 50.0, generator)
    return x + sigma * torch.randn(x.shape, generator=generator), sigma.flatten() / 40.0


def jpeg(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """JPEG of quality 5 to 60, grade up to 0.9."""
    quality = int(torch.randint(5, 61, (), generator=generator))
    packed = [through_jpeg(image, quality) for image in x.to(torch.uint8).permute(0, 2, 3, 1).numpy()]
    back = torch.from_numpy(np.stack(packed)).permute(0, 3, 1, 2).float()
    return back, torch.full((len(x),), (60 - quality) / 60.0)


def soft(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blur of 2 to 9 % of the width, grade up to 1."""
    share = float(_uniform(1, 0.02, 0.09, generator))
    return blurred(x, share), torch.full((len(x),), share / 0.09)


def dissolved(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blur of 15 to 40 % of the width, grade 3."""
    return blurred(x, float(_uniform(1, 0.15, 0.4, generator))), torch.full((len(x),), 3.0)


def blend(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two pictures on top of each other, grade 2."""
    weight = _uniform(len(x), 0.3, 0.7, generator)
    return weight * x + (1.0 - weight) * x.roll(1, dims=0), torch.full((len(x),), 2.0)


def collage(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The left of one picture beside the right of another, grade 2."""
    cut = _uniform(len(x), 0.35, 0.65, generator) * x.shape[-1]
    left = torch.arange(x.shape[-1]) < cut
    other = x.roll(1, dims=0)
    turned = torch.where(left, x, other)
    return torch.cat([turned[::2], turned[1::2].transpose(2, 3)]), torch.full((len(x),), 2.0)


def average(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The mean of all pictures with up to 10 levels of grain, or of brightness, grade 4."""
    shift = 10.0 * torch.randn((len(x), 3, 1, 1), generator=generator)
    sigma = _uniform(len(x), 0.0, 10.0, generator)
    flat = x.mean(dim=0, keepdim=True) + shift
    return flat + sigma * torch.randn(x.shape, generator=generator), torch.full((len(x),), 4.0)


def plain(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """One colour all over, grade 4."""
    colour = _uniform(3 * len(x), 0.0, 255.0, generator).view(len(x), 3, 1, 1)
    return colour.expand_as(x), torch.full((len(x),), 4.0)


def buried(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Gaussian noise of 60 to 150 levels over the picture, grade 5 to 6.5."""
    sigma = _uniform(len(x), 60.0, 150.0, generator)
    return x + sigma * torch.randn(x.shape, generator=generator), 4.0 + sigma.flatten() / 60.0


def shuffled(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The picture's own pixels in random order, grade 6."""
    order = torch.rand((len(x), 1, x.shape[2] * x.shape[3]), generator=generator).argsort(dim=2)
    return x.flatten(2).gather(2, order.expand(-1, x.shape[1], -1)).view_as(x), torch.full((len(x),), 6.0)


def clouds(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noise of 2 to 5 points per side, smoothly joined, grade 5."""
    side = int(torch.randint(2, 6, (), generator=generator))
    coarse = 255.0 * torch.rand((len(x), x.shape[1], side, side), generator=generator)
    grown = F.interpolate(coarse, size=x.shape[-2:], mode="bicubic", align_corners=False)
    return grown, torch.full((len(x),), 5.0)


def noise(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Uniform noise, grade 8."""
    return 256.0 * torch.rand(x.shape, generator=generator) - 0.5, torch.full((len(x),), 8.0)


KINDS = (
    Kind(untouched, 0.50, 0.0),
    Kind(grain, 0.06, 0.8),
    Kind(jpeg, 0.06, 0.8),
    Kind(soft, 0.06, 0.7),
    Kind(dissolved, 0.03, 0.0, meaningless=True),
    Kind(blend, 0.04, 0.0, meaningless=True),
    Kind(collage, 0.04, 0.0, meaningless=True),
    Kind(average, 0.03, 0.0, meaningless=True),
    Kind(plain, 0.02, 0.0, meaningless=True),
    Kind(buried, 0.03, 0.0, meaningless=True),
    Kind(shuffled, 0.04, 0.0, meaningless=True),
    Kind(clouds, 0.03, 0.0, meaningless=True),
    Kind(noise, 0.06, 0.0, meaningless=True),
)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return (low + (high - low) * torch.rand(count, generator=generator)).view(-1, 1, 1, 1)


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """One (H, W, 3) uint8 image, compressed and decompressed."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def blurred(x: Tensor, share: float) -> Tensor:
    """Gaussian blur whose standard deviation is a share of the width, edges repeated."""
    sigma = share * x.shape[-1]
    reach = max(1, math.ceil(3.0 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=len(kernel)), kernel.transpose(2, 3), groups=len(kernel))
