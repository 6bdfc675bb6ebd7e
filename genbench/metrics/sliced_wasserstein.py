"""Sliced 2-Wasserstein distance between features of samples and of real data, not squared.

    SW = sqrt(mean_theta W^2(theta.X, theta.Y)),  theta uniform on the sphere

(Bonneel et al. 2015, Sec. 3.) Presets: `monte_carlo` (the default, the definition) transports
projections on random directions exactly; `gaussian` is the closed approximation that dgm-eval prints
(Nadjahi et al. 2021, arXiv:2106.15427), which sees means and mean variances only. Both have the same
scale. Called `sw_<extractor>` and `sw_gaussian_<extractor>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Several, Whole
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate
from genbench.prob.sliced import gaussian_sliced_wasserstein, root_estimate, sliced_distance

SEED = 2020
"""Of the directions, as in MIND; not one that data are drawn with, whose noise the directions would repeat."""
HOW = "delta method over both sets, plus spread over directions; small-sample bias not removed"


def sliced_wasserstein(
    samples: Features, reference: Features, *, num_directions: int = 1000, seed: int = SEED
) -> Estimate:
    """Sliced 2-Wasserstein distance, not squared; >= 0, biased upwards by few samples.

    Formula and source: see the module. Sets may be of unequal size.

    Args:
        samples: (N, F) finite features or points, N > 1.
        reference: (M, F), M > 1.
        num_directions: at least 2.
        seed: of the directions.

    Raises:
        ValueError: a set or the number of directions is too small, the widths differ, or features are not finite.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    if min(len(samples), len(reference), num_directions) < 2:
        raise ValueError(
            "a sliced Wasserstein distance needs at least 2 samples, 2 reference examples and 2 directions, "
            f"found {len(samples)}, {len(reference)} and {num_directions}"
        )
    found = sliced_distance(samples, reference, num_directions=num_directions, seed=seed)
    return root_estimate(found.value, found.variance, how=HOW)


@register_metric("sliced_wasserstein")
@dataclass(frozen=True)
class SlicedWasserstein(Metric):
    """Mean transport along random directions of feature space; `sw_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("sw_<extractor>", "lower"),
        ScoreName("sw_gaussian_<extractor>", "lower"),
    )
    source: ClassVar[str] = "Bonneel et al. 2015, Sec. 3; Nadjahi et al. 2021, arXiv:2106.15427"

    preset: Literal["monte_carlo", "gaussian"] = "monte_carlo"
    """The definition over random directions, or dgm-eval's closed approximation."""
    num_directions: Several = 1000
    """Of `monte_carlo`."""
    seed: Whole = SEED
    """Of `monte_carlo`."""

    def __post_init__(self) -> None:
        if self.num_directions < 2:
            raise ValueError(f"num_directions is {self.num_directions}, expected at least 2")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error.

        Raises:
            ValueError: fewer than 2 samples or reference examples, or features that are not finite.
        """
        features = evidence.features
        samples, reference = feature_pair(features, owner="a sliced Wasserstein distance")
        assert features is not None
        protocol: dict[str, Scalar] = {**features.protocol, "preset": self.preset}
        if self.preset == "gaussian":
            name, found = f"sw_gaussian_{features.extractor}", gaussian_sliced_wasserstein(samples, reference)
        else:
            name = f"sw_{features.extractor}"
            found = sliced_wasserstein(samples, reference, num_directions=self.num_directions, seed=self.seed)
            protocol |= {"num_directions": self.num_directions, "seed": self.seed}
        protocol |= {"num_samples": len(samples), "num_reference": len(reference)}
        score = scored(
            name,
            found,
            better="lower",
            num_samples=len(samples),
            num_reference=len(reference),
            protocol=protocol,
        )
        return (score,)
