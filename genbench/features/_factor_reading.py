"""What small networks that read factors share: the description beside their weights, and readings from logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genbench.core.dataset import Factor
from genbench.core.features import FactorPredictions
from genbench.features._described_weights import described as described_weights


def described(path: Path, *, owner: str) -> tuple[tuple[Factor, ...], str]:
    """Factors and digest from the JSON beside the weights, after the weights are found to match it.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """
    return described_weights(
        path,
        owner=owner,
        read=lambda found: tuple(Factor(name, tuple(values)) for name, values in found["factors"].items()),
    )


def predictions(logits: Sequence[Tensor], factors: tuple[Factor, ...]) -> FactorPredictions:
    """The likeliest value of each factor from logits (N, values) each, and the least of their probabilities."""
    best = [each.softmax(dim=1).max(dim=1) for each in logits]
    return FactorPredictions(
        values=torch.stack([factor.indices for factor in best], dim=1),
        confidence=torch.stack([factor.values for factor in best], dim=1).amin(dim=1),
        factors=factors,
    )
