"""Evidence of the metrics that look for memorised training data."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.core.metric import FeatureEvidence, feature_pair
from genbench.core.spec import Scalar


def with_held_out(
    evidence: FeatureEvidence | None, *, owner: str, samples: int = 1, reference: int = 1, held_out: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Finite features of samples, of training examples and of held-out examples, as many as a metric needs.

    Args:
        evidence: of a cell.
        owner: what needs them, for the message.
        samples: least number.
        reference: least number.
        held_out: least number.

    Raises:
        ValueError: there are fewer, or some are not finite.
    """
    drawn, real = feature_pair(evidence, owner=owner, samples=samples, reference=reference)
    unseen = None if evidence is None else evidence.held_out
    if unseen is None or len(unseen) < held_out:
        raise ValueError(
            f"{owner} needs features of at least {held_out} real examples outside the training set, "
            f"found {0 if unseen is None else len(unseen)}"
        )
    if not bool(unseen.isfinite().all()):
        raise ValueError(f"{owner} needs finite features, found NaN or infinity")
    return drawn, real, unseen


def some_of(points: Tensor, num: int, *, seed: int) -> Tensor:
    """`num` of the points, chosen at random without replacement; all of them in order where there are no more."""
    if len(points) <= num:
        return points
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:num]
    return points[chosen.sort().values.to(points.device)]


def sizes(samples: Tensor, reference: Tensor, held_out: Tensor | None = None) -> dict[str, Scalar]:
    """Counts that belong to a protocol: distances to nearest points shrink as their number grows."""
    counts: dict[str, Scalar] = {"num_samples": len(samples), "num_reference": len(reference)}
    return counts if held_out is None else {**counts, "num_held_out": len(held_out)}
