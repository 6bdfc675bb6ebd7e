"""The nearest pairs of samples and reference examples, as lists to look at.

Each sample is paired with its nearest reference example; the pairs are listed from the nearest on.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genbench.prob.neighbours import nearest_neighbours


@dataclass(frozen=True)
class Pair:
    """A sample beside the reference example that is nearest to it."""

    sample: int
    """Row of the sample."""
    reference: int
    """Row of the reference example."""
    distance: float
    """Euclidean, in feature space; 0 for a copy."""


def nearest_pairs(samples: Tensor, reference: Tensor, *, num_pairs: int) -> tuple[Pair, ...]:
    """The samples nearest to a reference example, each with that example, nearest first.

    Args:
        samples: (N, F) finite features.
        reference: (M, F), M > 0.
        num_pairs: at most as many pairs are given; a sample is in one pair at most.
    """
    nearest = nearest_neighbours(samples, reference)
    distances, index = nearest.distances[:, 0], nearest.index[:, 0]
    order = distances.argsort(stable=True)[:num_pairs]
    return tuple(
        Pair(sample=sample, reference=int(index[sample]), distance=float(distances[sample]))
        for sample in order.tolist()
    )


def paired_neighbours(samples: Tensor, reference: Tensor, *, rows: Tensor, k: int) -> tuple[tuple[Pair, ...], ...]:
    """For each of the samples `rows` (int64), its k nearest reference examples, nearest first."""
    nearest = nearest_neighbours(samples[rows], reference, k=k)
    return tuple(
        tuple(
            Pair(sample=sample, reference=other, distance=distance)
            for other, distance in zip(others, distances, strict=True)
        )
        for sample, others, distances in zip(
            rows.tolist(), nearest.index.tolist(), nearest.distances.tolist(), strict=True
        )
    )
