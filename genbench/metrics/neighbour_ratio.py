"""Nearest-neighbour distance ratio: are samples nearer to the training data than to unseen real data?

With d_T(x) and d_H(x) the distances of a sample x to the nearest of M training examples and to the
nearest of M held-out examples (equal numbers: the larger set is thinned at random),

    closer_to_train = share of samples with d_T(x) < d_H(x), ties count half
    neighbour_ratio = median over samples of d_T(x) / d_H(x)

A model that has not memorised cannot tell the two sets apart: one half, and a ratio about 1. (The
share is the distance-to-closest-record test of synthetic data: Platzer and Reutterer 2021,
arXiv:2104.00635, Sec. 3.2.) Samples that share their nearest real example say the same thing, so
the interval of the share takes samples in clusters by nearest example of both sets together; under
the null the labels of these examples are fair coins, so it is exact in its variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Whole
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._given_scores import given_scores
from genbench.metrics._held_out import sizes, some_of, with_held_out
from genbench.prob.intervals import Estimate, share_interval
from genbench.prob.neighbours import Neighbours, nearest_neighbours
from genbench.prob.order_statistics import median_estimate

HOW = "over samples in clusters by nearest real example (Wilson with the effective number)"
HOW_RATIO = "order statistics of the median over samples, with the effective number of clusters"


def neighbour_ratio(
    samples: Features, reference: Features, held_out: Features, *, seed: int = 0
) -> dict[str, Estimate]:
    """`closer_to_train` (0 .. 1; 0.5 without memorisation) and `neighbour_ratio` (at least 0; about 1).

    Formulas and source: see the module. A ratio of two zero distances is 1.

    Args:
        samples: (N, F) finite features.
        reference: (M, F) of training examples.
        held_out: (H, F) of real examples of the same law that no model has been trained on.
        seed: of the choice of examples from the larger set.

    Raises:
        ValueError: one of the sets is empty, features are not finite or of unequal widths, or more than half of the
            samples equal a held-out example and no training example, so that the median ratio is infinite.
    """
    samples, reference, held_out = finite_features(samples=samples, reference=reference, held_out=held_out)
    num = min(len(reference), len(held_out))
    if num < 1 or len(samples) < 1:
        raise ValueError(f"found {len(samples)} samples and {num} real examples on one side, expected at least 1")
    train = nearest_neighbours(samples, some_of(reference, num, seed=seed))
    unseen = nearest_neighbours(samples, some_of(held_out, num, seed=seed))
    d_train, d_unseen = train.distances[:, 0], unseen.distances[:, 0]
    closer = (d_train < d_unseen).double() + 0.5 * (d_train == d_unseen).double()
    effective = _effective_number(train, unseen, num)
    share = float(closer.mean())
    stderr = (share * (1.0 - share) / effective) ** 0.5
    ratio = torch.where(d_train == d_unseen, torch.ones_like(d_train), d_train / d_unseen)
    median = median_estimate(ratio.cpu().numpy(), how=HOW_RATIO, effective=effective)
    if median.ci95 is not None and median.ci95[1] == float("inf"):
        raise ValueError("half of the samples equal held-out examples: these are no held-out data")
    return {
        "closer_to_train": Estimate(share, stderr, share_interval(share, effective), HOW),
        "neighbour_ratio": median,
    }


def _effective_number(train: Neighbours, unseen: Neighbours, num: int) -> float:
    """N^2 over the sum of squared cluster sizes: N where no two samples share their nearest example."""
    own = torch.where(train.squared <= unseen.squared, train.index, unseen.index + num)[:, 0]
    counts = torch.bincount(own, minlength=2 * num).double()
    return float(counts.sum() ** 2 / counts.square().sum())


@register_metric("neighbour_ratio")
@dataclass(frozen=True)
class NeighbourRatio(Metric):
    """Distance to the nearest training example against that to the nearest held-out one."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES, Need.HELD_OUT})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("closer_to_train", "lower"),
        ScoreName("neighbour_ratio", "higher"),
    )
    source: ClassVar[str] = "Platzer and Reutterer 2021, arXiv:2104.00635, Sec. 3.2"

    seed: Whole = 0
    """Of the choice of examples from the larger of the two real sets."""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores, over equally many training and held-out examples.

        Raises:
            ValueError: no sample, no example on one side, or features that are not finite.
        """
        owner = "a ratio of nearest-neighbour distances"
        samples, reference, held_out = with_held_out(evidence.features, owner=owner, reference=1)
        assert evidence.features is not None
        counts = sizes(samples, reference, held_out)
        protocol = {**evidence.features.protocol, "seed": self.seed, **counts}
        found = neighbour_ratio(samples, reference, held_out, seed=self.seed)
        return given_scores(
            self.gives, found, num_samples=len(samples), num_reference=len(reference), protocol=protocol
        )
