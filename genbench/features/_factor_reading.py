"""What small networks that read factors share: the description beside their weights, and readings from logits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genbench.core.dataset import Factor
from genbench.core.errors import DataError
from genbench.core.features import FactorPredictions


def described(path: Path, *, owner: str) -> tuple[tuple[Factor, ...], str]:
    """Factors and digest from the JSON beside the weights, after the weights are found to match it.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """
    beside = path.with_suffix(".json")
    hint = f"`genbench features train {owner} --out {path.parent}` writes both files"
    try:
        read = json.loads(beside.read_text(encoding="utf-8"))
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        factors = tuple(Factor(name, tuple(values)) for name, values in read["factors"].items())
        expected = str(read["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from error
    if found != expected:
        raise DataError(f"{path}: SHA-256 is {found[:16]}, {beside.name} says {expected[:16]}", hint=hint)
    return factors, expected


def predictions(logits: Sequence[Tensor], factors: tuple[Factor, ...]) -> FactorPredictions:
    """The likeliest value of each factor from logits (N, values) each, and the least of their probabilities."""
    best = [each.softmax(dim=1).max(dim=1) for each in logits]
    return FactorPredictions(
        values=torch.stack([factor.indices for factor in best], dim=1),
        confidence=torch.stack([factor.values for factor in best], dim=1).amin(dim=1),
        factors=factors,
    )
