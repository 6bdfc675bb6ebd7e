"""What the metrics of low-dimensional points share: checks and subsets."""

from __future__ import annotations

import numpy as np

from genbench.core.metric import VectorEvidence
from genbench.metrics._features import Features, finite_rows

Array = Features
"""What the plain functions take."""


def checked_points(x: Array, y: Array, *, owner: str, points: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of points (N, D) and (M, D), float64 and finite.

    Args:
        x: samples.
        y: reference.
        owner: what needs them, for the message: "a Sinkhorn divergence".
        points: least N and M.

    Raises:
        ValueError: shapes that do not fit, too few points, or values that are not finite.
    """
    first, second = (
        finite_rows(part, name=name, what="points").cpu().double().numpy() for name, part in (("x", x), ("y", y))
    )
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{owner} needs points (N, D) and (M, D), found {first.shape} and {second.shape}")
    if min(len(first), len(second)) < points:
        raise ValueError(
            f"{owner} needs at least {points} samples and {points} reference points, found {len(first)} and "
            f"{len(second)}"
        )
    return first, second


def found_vectors(evidence: VectorEvidence | None, *, owner: str) -> VectorEvidence:
    """The evidence itself.

    Raises:
        ValueError: there is none.
    """
    if evidence is None:
        raise ValueError(f"{owner} needs low-dimensional samples and reference points, found none")
    return evidence


def subset(x: np.ndarray, most: int, *, rng: np.random.Generator) -> np.ndarray:
    """At most `most` rows, in their order."""
    return x if len(x) <= most else x[np.sort(rng.choice(len(x), most, replace=False))]
