"""Episodes of pictures with texts: captions or answers, worded in a way that only the earlier texts of an episode show.

An example is one episode of nine pictures of `shapes`, each with a text. All texts of an episode are captions in one
style, or answers to one question, and use one of two words for every value (red or scarlet, top or upper). The
question says which factor it asks for, or does not: then the answers before show it. A text cannot be told from its
picture alone: whoever has seen no earlier text must guess style and words, and every further one shows more words.

`Batch.x` holds the texts, `Batch.pictures` the pictures, `Batch.y` the task and `Batch.factors` the factors of every
picture. Episode i of a split holds the pictures 9 i .. 9 i + 8 of that split of `shapes`, so that the splits are as
disjoint as there; in `novel` all pictures show pairs of shape and colour that `train` never has.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.texts import NamesFactors
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, uniforms
from genbench.data._wordings import (
    LENGTH,
    NUM_UNIFORMS,
    TASKS,
    VOCABULARY,
    texts_of,
    wordings_of,
    words_of_values,
)
from genbench.data.shapes import FACTORS, RESOLUTIONS, SPLITS, Resolution, Shapes, scenes_of

EPISODE = 9
"""Pictures of an episode: eight shots and the one that is asked about."""


@register_dataset("captioned_shapes")
@dataclass(frozen=True)
class CaptionedShapes(Dataset, NamesFactors):
    """Nine texts of at most fourteen words, each of a picture (3, resolution, resolution)."""

    source = "rendered on the spot; no licence needed"

    resolution: Resolution = 32
    """Side of a picture in pixels."""

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution is {self.resolution}, expected one of {', '.join(map(str, RESOLUTIONS))}")

    @property
    def spec(self) -> DataSpec:
        """Texts over a vocabulary of whole words, with the pictures that they are about."""
        return DataSpec(
            kind="text",
            shape=(EPISODE, LENGTH),
            levels=len(VOCABULARY),
            picture_shape=(3, self.resolution, self.resolution),
            num_classes=len(TASKS),
            factors=FACTORS,
            vocabulary=VOCABULARY,
        )

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those of `shapes`."""
        return SPLITS

    def size(self, split: Split) -> int | None:
        """None: there is no end to the episodes."""
        checked_split(split, SPLITS, owner="captioned_shapes")
        return None

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Texts with their pictures; the label is the task: caption, question, or question that names no factor."""
        checked_split(split, SPLITS, owner="captioned_shapes")
        rows = checked_indices(indices, size=None, owner=f"captioned_shapes, {split}")
        texts, tasks, factors = episodes(split, rows)
        pictures = Shapes(resolution=self.resolution).load(split, picture_rows(rows).ravel()).x
        return Batch(
            x=texts, y=tasks, factors=factors, pictures=pictures.reshape(-1, EPISODE, *self.spec.picture_shape)
        )

    def fingerprint(self) -> str:
        """Digest of the first 32 episodes of every split."""
        return _fingerprint(self)

    def named_factors(self, texts: Tensor) -> Tensor:
        """Values that texts (N, T) name, by either of their words: (N, 5) int64, -1 for none or several."""
        return _named(texts)


def picture_rows(rows: np.ndarray) -> np.ndarray:
    """Indices in `shapes` of the pictures of episodes (N,): (N, EPISODE)."""
    return np.asarray(rows[:, None] * EPISODE + np.arange(EPISODE))


def episodes(split: Split, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Texts (N, 9, 14) uint8, tasks (N,) int64 and factors (N, 9, 5) int64 of episodes; no picture is rendered."""
    factors = scenes_of(split, picture_rows(rows).ravel())[0].reshape(-1, EPISODE, len(FACTORS))
    wordings = wordings_of(uniforms(key_of("captioned_shapes", split), rows, NUM_UNIFORMS))
    texts = texts_of(wordings, factors)
    return torch.from_numpy(texts), torch.from_numpy(wordings.task), torch.from_numpy(factors)


def _named(texts: Tensor) -> Tensor:
    said = torch.zeros(len(texts), len(VOCABULARY), dtype=torch.bool, device=texts.device)
    said.scatter_(1, texts.long(), True)
    found = []
    for values in words_of_values():
        hits = torch.stack([torch.stack([said[:, word].any(1) for word in value]).all(0) for value in values], dim=1)
        found.append(torch.where(hits.sum(1) == 1, hits.long().argmax(1), -1))
    return torch.stack(found, dim=1)


@functools.cache
def _fingerprint(dataset: CaptionedShapes) -> str:
    digest = hashlib.sha256(repr(dataset).encode())
    for split in dataset.splits:
        batch = dataset.load(split, range(32))
        for tensor in (batch.x, batch.y, batch.factors, batch.pictures):
            assert tensor is not None
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
