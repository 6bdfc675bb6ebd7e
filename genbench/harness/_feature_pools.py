"""Pictures of `shapes` to train feature extractors on, and the schedule of their training.

One batch holds pictures of all four resolutions, about half of them untouched, at the one size that
the networks see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.core.dataset import Batch, Dataset, build_dataset
from genbench.core.spec import Ref
from genbench.evaluation.damage import Damaged, damaged

RESOLUTIONS = (8, 16, 32, 64)
FIRST_INDEX = 100_000_000
"""Examples of `shapes` from here on: far from those that models train on and are compared with."""
NOVEL_SHARE = 1 / 6
"""Share of pictures with a pair of shape and colour that `train` never shows: their share of all pairs."""
WARMUP_STEPS = 50
SCHEMA = "genbench.features/1"
"""Of the description beside the weights."""


@dataclass(frozen=True)
class Drawn:
    """One batch; row i of every tensor belongs to picture i."""

    images: Tensor
    """(B, 3, side, side) float32, values 0 .. 255: resized, after damage."""
    factors: Tensor
    """(B, K) int64, of the picture before damage."""
    text: Tensor
    """(B, T) int64, of the picture before damage."""
    damages: list[Damaged]
    """What was done at each resolution, in the order of the pictures."""


def shapes_at(resolution: int) -> Dataset:
    """`shapes` at one resolution."""
    return build_dataset(Ref(name="shapes", config={"resolution": resolution}))


def pool(dataset: Dataset, count: int) -> Batch:
    """Pictures of all pairs of shape and colour, those that `train` never shows included."""
    novel = round(count * NOVEL_SHARE)
    parts = [
        dataset.load("train", np.arange(FIRST_INDEX, FIRST_INDEX + count - novel)),
        dataset.load("novel", np.arange(FIRST_INDEX, FIRST_INDEX + novel)),
    ]
    return Batch(
        x=torch.cat([part.x for part in parts]),
        factors=torch.cat([part.factors for part in parts if part.factors is not None]),
        text=torch.cat([part.text for part in parts if part.text is not None]),
    )


def draw(pools: dict[int, Batch], pictures: dict[int, int], *, side: int, generator: Generator) -> Drawn:
    """One batch: `pictures` of each resolution, damaged, and resized to `side` pixels."""
    images, factors, text, damages = [], [], [], []
    for resolution, examples in pools.items():
        rows = torch.randint(len(examples), (pictures[resolution],), generator=generator)
        part = examples[rows]
        assert part.factors is not None
        assert part.text is not None
        damage = damaged(part.x, generator=generator)
        images.append(F.interpolate(damage.images, size=(side, side), mode="bilinear", align_corners=False))
        factors.append(part.factors)
        text.append(part.text)
        damages.append(damage)
    return Drawn(torch.cat(images), torch.cat(factors), torch.cat(text), damages)


def schedule(step: int, steps: int) -> float:
    """Share of the greatest learning rate: linear warm-up, then a cosine to zero."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))
