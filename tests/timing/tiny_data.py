"""The smallest data that each registered model can be counted and compiled on."""

from __future__ import annotations

import torch

from genbench.conformance import usual_data
from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.model import GenerativeModel

PICTURES = DataSpec(shape=(3, 8, 8), num_classes=4, vocabulary=("", "a", "red", "square"))
_TEXTS = build_dataset(usual_data(("text",)))


def data_for(kind: type[GenerativeModel]) -> DataSpec:
    """Pictures with classes and captions, or for models of texts those that are rendered with the pictures."""
    return PICTURES if "image" in kind.takes else _TEXTS.spec


def batch_of(spec: DataSpec, generator: torch.Generator) -> Batch:
    """Eight examples, all that is known of them given."""
    if spec.kind == "text":
        return _TEXTS.load("train", torch.randint(1000, (8,), generator=generator).numpy())
    x = torch.randint(256, (8, *spec.shape), generator=generator, dtype=torch.uint8)
    return Batch(x=x, y=torch.arange(8) % 4, text=torch.tensor([[1, 2, 3]]).expand(8, -1))
