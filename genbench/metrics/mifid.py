"""Memorisation-informed Frechet distance: the distance, divided by how far samples keep from the training data.

    d    = mean over samples x of  min over training examples t of  1 - |cos(x, t)|
    MIFD = FD / (d + 1e-15)   where d < 0.1,   FD otherwise

(Bai et al. 2021, arXiv:2106.03062, Eq. 3 to 5, the Generative Dog Images competition.) The minimum
is over training examples, one for each *sample*; features that are all zero have no direction and
take no part in d. `mifid` over Inception-v3 features only, else `mifd_<extractor>`;
`memorisation_distance` is d. Both distances are between the features at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Share
from genbench.core.record import Better, Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._held_out import sizes
from genbench.metrics._scores import named, scored
from genbench.prob.frechet import frechet, frechet_influence
from genbench.prob.intervals import Estimate, mean_estimate, normal_interval
from genbench.prob.neighbours import nearest_neighbours

HOW = "delta method over samples, Frechet distance and penalty together; training examples held fixed"
HOW_DISTANCE = "spread over samples; training examples held fixed"
LOWER: Better = "lower"
HIGHER: Better = "higher"
_TINY = 1e-15
"""Added to d in the denominator, as in the competition's code."""


def cosine_distances(samples: Features, reference: Features) -> Tensor:
    """Least 1 - |cos| of each sample to a training example: (N,) float64, 0 .. 1, NaN for samples of all zeros.

    Args:
        samples: (N, F) finite features.
        reference: (M, F).

    Raises:
        ValueError: all samples or all examples are zeros, or features are not finite or of unequal widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    x, y = _directions(samples), _directions(reference)
    if not len(x) or not len(y):
        raise ValueError("a memorisation distance needs features that are not all zero")
    squared = nearest_neighbours(x, y).squared[:, 0]
    if bool((x < 0).any()) or bool((y < 0).any()):  # else no cosine is negative
        squared = torch.minimum(squared, nearest_neighbours(x, y.neg()).squared[:, 0])
    distances = torch.full((len(samples),), math.nan, dtype=torch.float64, device=samples.device)
    distances[(samples != 0).any(dim=1)] = 0.5 * squared  # |u - v|^2 = 2 - 2 cos: no difference of numbers near 1
    return distances


def mifid(samples: Features, reference: Features, *, threshold: float = 0.1) -> dict[str, Estimate]:
    """`mifid` (at least 0; lower is better) and `memorisation_distance` (0 .. 1; higher is better).

    Formula and source: see the module.

    Args:
        samples: (N, F) finite features, N > 1.
        reference: (M, F) of training examples, M > 1.
        threshold: d from which on nothing is divided.

    Raises:
        ValueError: fewer than 2 points in a set, a set of zeros, or features that are not finite or of unequal widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    if min(len(samples), len(reference)) < 2:
        raise ValueError(f"found {len(samples)} samples and {len(reference)} examples, expected at least 2 of each")
    distances = cosine_distances(samples, reference).cpu().numpy()
    kept = ~np.isnan(distances)
    d = mean_estimate(distances[kept], how=HOW_DISTANCE, low=0.0, high=1.0)
    x, y = samples.double().cpu().numpy(), reference.double().cpu().numpy()
    plain = frechet(x, *_moments(y))
    value, stderr = plain.value, plain.stderr
    if d.value < threshold:
        shrunk = d.value + _TINY
        pull = np.where(kept, distances - d.value, 0.0) * (len(kept) / int(kept.sum()))
        value = plain.value / shrunk
        influence = (frechet_influence(x, *_moments(y)) - value * pull) / shrunk
        stderr = float(influence.std(ddof=1)) / math.sqrt(len(influence))
    assert stderr is not None
    return {"mifid": Estimate(value, stderr, normal_interval(value, stderr, low=0.0), HOW), "memorisation_distance": d}


def _directions(points: Tensor) -> Tensor:
    """Rows of length 1, those of length 0 left out, in the precision of the features."""
    values = points if points.dtype == torch.float64 else points.float()
    values = values[(values != 0).any(dim=1)]
    values = values / values.abs().amax(dim=1, keepdim=True)  # no square may underflow
    directions: Tensor = values / torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return directions


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))


@register_metric("mifid")
@dataclass(frozen=True)
class MIFID(Metric):
    """Frechet distance with a penalty for samples whose features point where training examples' do."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("mifid", "lower"),
        ScoreName("mifd_<extractor>", "lower"),
        ScoreName("memorisation_distance", "higher"),
    )
    source: ClassVar[str] = "Bai et al. 2021, arXiv:2106.03062, Eq. 3 to 5"

    threshold: Share = 0.1
    """Distance from which on there is no penalty."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold is {self.threshold}, expected 0 .. 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores.

        Raises:
            ValueError: fewer than 2 samples or examples, features that are not finite, or all zero.
        """
        features = evidence.features
        samples, reference = feature_pair(features, owner="a memorisation-informed Frechet distance")
        assert features is not None
        found = mifid(samples, reference, threshold=self.threshold)
        name = named(features.extractor, inception="mifid", other="mifd")
        protocol = {**features.protocol, "threshold": self.threshold, **sizes(samples, reference)}
        return tuple(
            scored(
                label,
                found[key],
                better=better,
                num_samples=len(samples),
                num_reference=len(reference),
                protocol=protocol,
            )
            for label, key, better in (
                (name, "mifid", LOWER),
                ("memorisation_distance", "memorisation_distance", HIGHER),
            )
        )
