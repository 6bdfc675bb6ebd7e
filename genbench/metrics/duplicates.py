"""Duplicates: share of samples that are exact or near copies of a training example.

    exact_duplicates = share of samples at distance 0 of a training example
    near_duplicates  = share of samples at most t from a training example

The threshold t is calibrated on data that cannot have been copied: it is the q-quantile, q one in a
thousand unless told otherwise, of the H held-out examples' distances to their nearest training
examples, so that r of them, r / H about q, are as near. A model that draws new data falls below t as
seldom as they do; the number of near duplicates among N samples is then at most beta-binomial with
parameters (N, r + 1, H - r). That gives `near_duplicates_p`, a bound of the chance of as many or
more without copying. The shares say how much is copied, the p-value whether it needs explaining.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from scipy import stats

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import OpenShare
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._given_scores import given_scores
from genbench.metrics._held_out import sizes, with_held_out
from genbench.prob.intervals import Estimate, share_interval
from genbench.prob.neighbours import nearest_neighbours

HOW = "binomial over samples (Wilson); training examples and threshold held fixed"


def duplicates(
    samples: Features, reference: Features, held_out: Features, *, quantile: float = 0.001
) -> dict[str, Estimate]:
    """`exact_duplicates`, `near_duplicates` and `near_duplicates_p`, each 0 .. 1, by name.

    Formulas: see the module.

    Args:
        samples: (N, F) finite features.
        reference: (M, F) of training examples.
        held_out: (H, F) of real examples of the same law that no model has been trained on.
        quantile: q, above 0 and below 1.

    Raises:
        ValueError: a set is empty, or features are not finite or of unequal widths.
    """
    samples, reference, held_out = finite_features(samples=samples, reference=reference, held_out=held_out)
    if min(len(samples), len(reference), len(held_out)) < 1:
        counts = f"{len(samples)}, {len(reference)} and {len(held_out)}"
        raise ValueError(f"found {counts} samples, training and held-out examples, expected at least 1 of each")
    squared = nearest_neighbours(samples, reference).squared[:, 0]
    calm = nearest_neighbours(held_out, reference).squared[:, 0]
    rank = max(1, math.floor(quantile * len(held_out)))
    threshold = calm.kthvalue(rank).values
    exact, near, as_near = (int(hit.sum()) for hit in (squared == 0, squared <= threshold, calm <= threshold))
    chance = 1.0
    if as_near < len(held_out):
        chance = float(stats.betabinom.sf(near - 1, len(samples), as_near + 1, len(held_out) - as_near))
    return {
        "exact_duplicates": _share(exact, len(samples)),
        "near_duplicates": _share(near, len(samples)),
        "near_duplicates_p": Estimate(min(1.0, chance), how="none: a bound of a probability"),
    }


def _share(count: int, num: int) -> Estimate:
    share = count / num
    return Estimate(share, math.sqrt(share * (1.0 - share) / num), share_interval(share, num), HOW)


@register_metric("duplicates")
@dataclass(frozen=True)
class Duplicates(Metric):
    """Copies of training examples among the samples: exact, near, and whether chance explains them."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES, Need.HELD_OUT})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("exact_duplicates", "lower"),
        ScoreName("near_duplicates", "lower"),
        ScoreName("near_duplicates_p", "higher"),
    )
    source: ClassVar[str] = "beta-binomial law of exceedances of an order statistic over nearest-neighbour distances"

    quantile: OpenShare = 0.001
    """Share of held-out examples that may be as near to a training example as what counts as near."""

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile is {self.quantile}, expected above 0 and below 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Three scores over all samples.

        Raises:
            ValueError: a set is empty, or features are not finite.
        """
        owner = "a count of duplicates"
        samples, reference, held_out = with_held_out(evidence.features, owner=owner)
        assert evidence.features is not None
        counts = sizes(samples, reference, held_out)
        protocol = {**evidence.features.protocol, "quantile": self.quantile, **counts}
        found = duplicates(samples, reference, held_out, quantile=self.quantile)
        return given_scores(
            self.gives, found, num_samples=len(samples), num_reference=len(reference), protocol=protocol
        )
