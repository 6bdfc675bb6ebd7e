"""Rendered pictures of one object on a plain background, without end.

Every example has five ground-truth factors, a class (its shape), a caption, and continuous jitter of position, size,
angle and colour that never blurs a factor. Example i is a function of the split and i alone, and the same scene at
every resolution. Four of the 24 pairs of shape and colour never occur in `train` and `test`; they make up `novel`.

The splits are disjoint by construction: the horizontal jitter takes values on a lattice whose even points belong to
`train` and `novel` and whose odd points belong to `test`, and `novel` has its own pairs of shape and colour. The
lattice is 5e-6 of the picture's width fine, so no model can tell the splits apart by it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from genbench.core.dataset import PAD, Batch, Dataset, DataSpec, Factor, Split, register_dataset
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, uniforms
from genbench.data._scenes import Scenes, render

SPLITS: tuple[Split, ...] = ("train", "test", "novel")
Resolution = Literal[8, 16, 32, 64]
RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)
FACTORS = (
    Factor("shape", ("circle", "square", "triangle", "cross")),
    Factor("colour", ("red", "green", "blue", "yellow", "magenta", "cyan")),
    Factor("size", ("small", "large")),
    Factor("position", ("top left", "top right", "bottom left", "bottom right", "centre")),
    Factor("background", ("black", "grey", "white", "brown")),
)
COLOURS = np.array(
    [[225, 35, 35], [35, 185, 50], [40, 75, 230], [240, 215, 35], [220, 45, 215], [40, 210, 220]], dtype=np.float64
)
BACKGROUNDS = np.array([[18, 18, 18], [128, 128, 128], [237, 237, 237], [118, 72, 36]], dtype=np.float64)
RADII = np.array([0.19, 0.27])
"""Size of a small and a large object, in picture widths: at 8 pixels a small object is 3 pixels wide."""
OFFSETS = np.array([0.22, 0.145])
"""Distance of a corner position from the middle, per axis, for a small and a large object."""
DIRECTIONS = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1], [0, 0]], dtype=np.float64)
HELD_OUT = ((0, 3), (1, 0), (2, 5), (3, 2))
"""Pairs (shape, colour) of `novel`: yellow circle, red square, cyan triangle, blue cross."""

POSITION_JITTER = 0.02
"""Greatest shift along each axis, in picture widths: a third of a pixel peak to peak at 8 pixels."""
SIZE_JITTER = 0.03
"""Greatest relative change of the size; a square and a circle of any size stay apart by their areas alone."""
HALF_TANGENT = 0.07
"""Tangent of half the greatest rotation, which is 8 degrees."""
COLOUR_JITTER = 8.0
"""Greatest change of one channel, in levels; brightness varies by as much again, in all channels together."""
LATTICE = 4096
"""Horizontal positions per split within a cell."""

VOCABULARY = (
    "", "a", "small", "large", "red", "green", "blue", "yellow", "magenta", "cyan", "circle", "square", "triangle",
    "cross", "at", "in", "the", "top", "bottom", "left", "right", "centre", "on", "black", "grey", "white", "brown",
    "background",
)  # fmt: skip
CAPTION_LENGTH = 12
"""Words of the longest caption."""


@register_dataset("shapes")
@dataclass(frozen=True)
class Shapes(Dataset):
    """One object on a plain background; (3, resolution, resolution), values 0 .. 255, four classes."""

    source = "rendered on the spot; no licence needed"

    resolution: Resolution = 32
    """Side of a picture in pixels."""

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution is {self.resolution}, expected one of {', '.join(map(str, RESOLUTIONS))}")

    @property
    def spec(self) -> DataSpec:
        """RGB images with 256 levels, four classes, five factors and captions."""
        return DataSpec(
            shape=(3, self.resolution, self.resolution),
            num_classes=len(FACTORS[0].values),
            factors=FACTORS,
            vocabulary=VOCABULARY,
        )

    @property
    def splits(self) -> tuple[Split, ...]:
        """Train and test share their combinations of factors; novel has its own."""
        return SPLITS

    def size(self, split: Split) -> int | None:
        """None: there is no end to the examples."""
        checked_split(split, SPLITS, owner="shapes")
        return None

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Pictures with shape as label, all factors, and captions of `CAPTION_LENGTH` tokens."""
        checked_split(split, SPLITS, owner="shapes")
        rows = checked_indices(indices, size=None, owner=f"shapes, {split}")
        factors, scenes = scenes_of(split, rows)
        return Batch(
            x=torch.from_numpy(render(scenes, self.resolution)),
            y=torch.from_numpy(factors[:, 0].copy()),
            factors=torch.from_numpy(factors),
            text=torch.from_numpy(captions(factors)),
        )

    def fingerprint(self) -> str:
        """Digest of the first 64 examples of every split, as rendered."""
        return _fingerprint(self)

    def combinations(self, split: Split) -> np.ndarray:
        """Every combination of factor values: (800, 5) for train and test, (160, 5) for novel."""
        return _combinations(checked_split(split, SPLITS, owner="shapes")).copy()


def scenes_of(split: Split, indices: np.ndarray) -> tuple[np.ndarray, Scenes]:
    """Factors (N, 5) int64 and scenes at the given indices; the resolution plays no part.

    Every combination of factors is equally likely, every jitter uniform.
    """
    u = uniforms(key_of("shapes", split), indices, 10)
    table = _combinations(split)
    factors = table[(u[:, 0] * len(table)).astype(np.int64)]
    _, colour, size, position, background = factors.T
    lattice = 2.0 * np.floor(u[:, 1] * LATTICE) + (split == "test")
    shift = np.stack([2.0 * lattice / (2 * LATTICE - 1) - 1.0, 2.0 * u[:, 2] - 1.0], axis=1)
    jitter = 2.0 * u[:, 3:] - 1.0  # (N, 7) in [-1, 1)
    scenes = Scenes(
        shape=factors[:, 0],
        centre=0.5 + OFFSETS[size][:, None] * DIRECTIONS[position] + POSITION_JITTER * shift,
        radius=RADII[size] * (1.0 + SIZE_JITTER * jitter[:, 0]),
        half_tangent=HALF_TANGENT * jitter[:, 1],
        colour=COLOURS[colour] + COLOUR_JITTER * (jitter[:, 2:5] + jitter[:, 5:6]),
        background=BACKGROUNDS[background] + COLOUR_JITTER * jitter[:, 6:7],
    )
    return factors, scenes


def captions(factors: np.ndarray) -> np.ndarray:
    """Captions of factor values (N, 5): (N, 12) int64 tokens padded with `PAD`."""
    table, radix = _caption_table()
    return np.asarray(table[factors @ radix])


@functools.cache
def _combinations(split: Split) -> np.ndarray:
    every = itertools.product(*(range(len(factor.values)) for factor in FACTORS))
    return np.array([row for row in every if (row[:2] in HELD_OUT) == (split == "novel")], dtype=np.int64)


@functools.cache
def _caption_table() -> tuple[np.ndarray, np.ndarray]:
    """Captions of all 960 combinations, and the weights that turn factor values into a row of it."""
    sizes = [len(factor.values) for factor in FACTORS]
    table = np.full((int(np.prod(sizes)), CAPTION_LENGTH), PAD, dtype=np.int64)
    names = itertools.product(*(factor.values for factor in FACTORS))
    for row, (shape, colour, size, position, background) in enumerate(names):
        where = "in the centre" if position == "centre" else f"at the {position}"
        sentence = f"a {size} {colour} {shape} {where} on a {background} background".split()
        table[row, : len(sentence)] = [VOCABULARY.index(word) for word in sentence]
    radix = np.array([int(np.prod(sizes[place + 1 :])) for place in range(len(sizes))], dtype=np.int64)
    return table, radix


@functools.cache
def _fingerprint(dataset: Shapes) -> str:
    digest = hashlib.sha256(repr(dataset).encode())
    for split in dataset.splits:
        batch = dataset.load(split, range(64))
        for tensor in (batch.x, batch.factors, batch.text):
            assert tensor is not None
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
