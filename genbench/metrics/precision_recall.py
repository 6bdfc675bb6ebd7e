"""Precision, recall, density and coverage from nearest-neighbour balls in feature space.

Precision is the share of samples within a ball around some real example, recall the share of real
examples within a ball around some sample (Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 1 and 2;
edge included). Density counts the real balls that a sample is inside of, coverage the real balls
with a sample inside (Naeem et al. 2020, arXiv:2002.09797, Eq. 3 and 4; edge excluded). A ball
reaches to the k-th nearest other point of its own set. All four come from one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genbench.core.metric import Evidence, FeatureEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.prob.intervals import normal_interval, share_interval
from genbench.prob.neighbours import count_balls, squared_radii

HOW = "over both sets: binomial over points, half the delete-one jackknife over balls; radii held fixed"


@register_metric("precision_recall")
@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """Four shares of balls and points: fidelity (precision, density) and variety (recall, coverage)."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("precision", "higher"),
        ScoreName("recall", "higher"),
        ScoreName("density", "higher"),
        ScoreName("coverage", "higher"),
    )
    source: ClassVar[str] = "Kynkaanniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797"

    k: int = 3
    """Neighbours within a ball, its centre not counted; 3 in the first paper, 5 in the second."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, expected at least 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Four scores over all samples and all reference examples, whose counts may differ.

        Raises:
            ValueError: not more than k samples or reference examples, or features that are not finite.
        """
        features = self._checked(evidence.features)
        samples, reference = features.samples, features.reference
        real = count_balls(samples, reference, squared_radii(reference, self.k))
        drawn = count_balls(reference, samples, squared_radii(samples, self.k))
        found = {
            "precision": _share(real.within > 0, real.sole_holder),
            "recall": _share(drawn.within > 0, drawn.sole_holder),
            "density": _density(real.inside, real.occupants, self.k),
            "coverage": _share(real.occupants > 0, real.sole_occupant),
        }
        return tuple(self._score(name, features, *values) for name, values in found.items())

    def _checked(self, features: FeatureEvidence | None) -> FeatureEvidence:
        counts = (0, 0) if features is None else (len(features.samples), len(features.reference))
        if features is None or min(counts) <= self.k:
            raise ValueError(
                f"balls of {self.k} neighbours need features of at least {self.k + 1} samples and "
                f"{self.k + 1} reference examples, found {counts[0]} and {counts[1]}"
            )
        if not (features.samples.isfinite().all() and features.reference.isfinite().all()):
            raise ValueError("nearest neighbours need finite features, found NaN or infinity")
        return features

    def _score(
        self, name: str, features: FeatureEvidence, value: float, stderr: float, ci95: tuple[float, float]
    ) -> Score:
        counts = {"num_samples": len(features.samples), "num_reference": len(features.reference)}
        return Score(
            name=name,
            value=value,
            unit="",
            better="higher",
            stderr=stderr,
            ci95=ci95,
            interval=HOW
            if name != "density"
            else "over both sets: spread over points and over balls; radii held fixed",
            num_samples=counts["num_samples"],
            num_reference=counts["num_reference"],
            protocol={**features.protocol, "k": self.k, **counts},
        )


def _share(hit: Tensor, sole: Tensor) -> tuple[float, float, tuple[float, float]]:
    """Share of hits, its standard error and interval.

    Points are drawn at random, and so are the balls they lie in. Dropping ball b loses the `sole`
    points that only b holds; the jackknife over these losses counts every pair of interchangeable
    balls twice (Efron and Stein 1981), so half of it is added.

    Args:
        hit: (N,) bool, one for each point.
        sole: (M,) int64, hits that would be lost with each ball.
    """
    share = float(hit.double().mean())
    binomial = share * (1.0 - share) / len(hit)
    losses = sole.double() / len(hit)
    variance = binomial + 0.5 * (len(losses) - 1) * float(losses.var(correction=0))
    effective = share * (1.0 - share) / variance if binomial > 0 else float(len(hit))
    return share, variance**0.5, share_interval(share, effective)


def _density(inside: Tensor, occupants: Tensor, k: int) -> tuple[float, float, tuple[float, float]]:
    """Mean number of real balls around a sample over k, its standard error and interval."""
    per_point = inside.double() / k
    per_ball = occupants.double() * (len(occupants) / (k * len(inside)))
    value = float(per_point.mean())
    variance = float(torch.var(per_point)) / len(inside) + float(torch.var(per_ball)) / len(occupants)
    return value, variance**0.5, normal_interval(value, variance**0.5, low=0.0)
