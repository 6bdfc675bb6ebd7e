"""What models say of pictures of held-out episodes, to be read beside the true texts, by the number of shots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from genbench.core.dataset import Batch, Dataset
from genbench.core.model import CaptionModel, GenerativeModel
from genbench.harness.evidence import subset
from genbench.harness.text_evidence import described, shots_of


@dataclasses.dataclass(frozen=True)
class AskedAbout:
    """Held-out episodes, and what is to be seen of them."""

    episodes: Batch
    pictures: np.ndarray
    """(N, C, H, W) uint8, the last of each episode."""
    truth: list[str]


def why_no_texts(model: GenerativeModel | None, dataset: Dataset) -> str | None:
    """Why there is nothing to be read, None where there is."""
    if dataset.spec.kind != "text":
        return "no texts in this run"
    return None if model is None or isinstance(model, CaptionModel) else "the model says nothing of pictures"


def asked_about(dataset: Dataset, count: int) -> AskedAbout:
    """The first held-out episodes, which scores are of too."""
    episodes = subset(dataset, "test", count)
    assert episodes.pictures is not None  # `why_no_texts` has refused other data
    truth = [dataset.spec.caption(text) for text in episodes.x[:, -1]]
    return AskedAbout(episodes, episodes.pictures[:, -1].numpy(), truth)


def said(model: GenerativeModel, dataset: Dataset, asked: AskedAbout) -> dict[int, list[str]]:
    """Texts after each number of shots, the fewest first."""
    found = {}
    for shots in reversed(shots_of(dataset)):
        texts = described(model, asked.episodes, shots=shots)
        found[shots] = [dataset.spec.caption(text) for text in texts]
    return found


def told_apart(found: Mapping[int, list[str]]) -> dict[str, list[str]]:
    """What `said` gives, by the number of shots in words; once where it is the same whatever the number.

    Example:
        >>> told_apart({0: ["red"], 1: ["a disc"]}), told_apart({0: ["red"], 1: ["red"]})
        ({'0 shots': ['red'], '1 shot': ['a disc']}, {'any number of shots': ['red']})
    """
    first, *others = found.values()
    if others and all(texts == first for texts in others):
        return {"any number of shots": first}
    return {f"{shots} shot{'' if shots == 1 else 's'}": texts for shots, texts in found.items()}
