"""Sliced 2-Wasserstein distance between low-dimensional samples and held-out points.

    SW = sqrt(mean over unit vectors theta of W_2^2(theta.X, theta.Y))

(Rabin et al. 2011; Bonneel et al. 2015, Sec. 3), over the points themselves and not over features of a network. In one
dimension it is the Wasserstein distance itself. Not squared, so that it is a length in the units of the data; the
value is biased upwards for few points, by about 1/sqrt(N) where the laws are equal, and is comparable only between
equal counts, which therefore belong to the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Count, Whole
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.metrics._vectors import Array, checked_points, found_vectors
from genbench.prob.intervals import Estimate
from genbench.prob.sliced import root_estimate, sliced_distance

_OWNER = "a sliced Wasserstein distance"


def vector_wasserstein(x: Array, y: Array, *, num_directions: int = 1000, seed: int = 0) -> Estimate:
    """Square root of the mean squared 2-Wasserstein distance along random directions, >= 0, in the data's units.

    Args:
        x: (N, D) float, samples.
        y: (M, D) float, reference points; M may differ from N.
        num_directions: unit vectors, drawn uniformly on the sphere.
        seed: of the directions.

    Returns:
        The estimate; its error is the delta method over both sets and over directions. Where the laws are equal that
        error shrinks faster than the bias, and the interval does not reach 0.

    Raises:
        ValueError: fewer than 2 points on a side, unequal widths, or points that are not finite.
    """
    first, second = checked_points(x, y, owner=_OWNER)
    found = sliced_distance(first, second, num_directions=num_directions, seed=seed)
    how = "delta method over both sets and directions; small-sample bias not removed"
    return root_estimate(found.value, found.variance, how=how)


@register_metric("vector_wasserstein")
@dataclass(frozen=True)
class VectorWasserstein(Metric):
    """Sliced 2-Wasserstein distance of samples from held-out points, in the units of the data."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.VECTORS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("sliced_w2", "lower"),)
    source: ClassVar[str] = "Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3, Sec. 3"

    num_directions: Count = 1000
    seed: Whole = 0
    """Of the directions."""

    def __post_init__(self) -> None:
        if self.num_directions < 1:
            raise ValueError(f"num_directions is {self.num_directions}, expected at least 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: as the function says.
        """
        found = found_vectors(evidence.vectors, owner=_OWNER)
        x, y = found.samples, found.reference
        estimate = vector_wasserstein(x, y, num_directions=self.num_directions, seed=self.seed)
        num, against = len(x), len(y)
        protocol = {
            "num_directions": self.num_directions,
            "seed": self.seed,
            "num_samples": num,
            "num_reference": against,
        }
        found_score = scored(
            "sliced_w2", estimate, better="lower", num_samples=num, num_reference=against, protocol=protocol
        )
        return (found_score,)
