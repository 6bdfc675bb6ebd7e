"""Authenticity: share of samples that are no closer to a training example than its own neighbours are.

    A = (1/N) #{ x : |x - t(x)| > |t(x) - t'(x)| },

where t(x) is the training example nearest to the sample x, and t'(x) the training example nearest
to t(x) (Alaa et al. 2022, arXiv:2102.08921, Sec. 3.3, over given features in place of a one-class
network's). dgm-eval prints 100 A, the code of FLD 100 A - 50. A sample as far off as the
neighbours, or a copy among equal training examples, is not authentic.

Departure: the authors' code looks up |t - t'| of the training example whose number is the sample's;
here it is that of the sample's nearest one, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._held_out import sizes
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, share_interval
from genbench.prob.neighbours import nearest_neighbours, nearest_others

HOW = "binomial over samples (Wilson); training examples held fixed"


def authentic_samples(samples: Features, reference: Features) -> Tensor:
    """Whether each sample is farther from its nearest training example than that one's neighbours: (N,) bool.

    Args:
        samples: (N, F) finite features.
        reference: (M, F) of training examples, M > 1.

    Raises:
        ValueError: features that are not finite or of unequal widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    nearest = nearest_neighbours(samples, reference)
    own = nearest_others(reference).squared[:, 0]
    return nearest.squared[:, 0] > own[nearest.index[:, 0]]


def authenticity(samples: Features, reference: Features) -> Estimate:
    """Share of authentic samples, 0 .. 1; higher is better.

    Formula and source: see the module. Shapes as in `authentic_samples`.

    Raises:
        ValueError: no sample, only one training example, or features that are not finite or of unequal widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    if len(samples) < 1 or len(reference) < 2:
        raise ValueError(f"authenticity needs 1 sample and 2 examples, found {len(samples)} and {len(reference)}")
    share = float(authentic_samples(samples, reference).double().mean())
    stderr = (share * (1.0 - share) / len(samples)) ** 0.5
    return Estimate(share, stderr, share_interval(share, len(samples)), HOW)


@register_metric("authenticity")
@dataclass(frozen=True)
class Authenticity(Metric):
    """Share of samples farther from the training data than the training data's own neighbours."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("authenticity", "higher"),)
    source: ClassVar[str] = "Alaa et al. 2022, arXiv:2102.08921, Sec. 3.3"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a binomial interval.

        Raises:
            ValueError: no sample, fewer than 2 training examples, or features that are not finite.
        """
        samples, reference = feature_pair(evidence.features, owner="authenticity", samples=1)
        assert evidence.features is not None
        score = scored(
            "authenticity",
            authenticity(samples, reference),
            better="higher",
            num_samples=len(samples),
            num_reference=len(reference),
            protocol={**evidence.features.protocol, **sizes(samples, reference)},
        )
        return (score,)
