"""Feature likelihood divergence: how unlikely held-out data is under the samples, over what must be expected.

Every sample becomes a Gaussian whose width is fitted so that the mixture explains the *training*
data; the mixture is then asked for the *held-out* data (Jiralerspong et al. 2023, arXiv:2302.04440,
Eq. 2 to 4). A sample that copies a training example gets a width near nothing, and gives held-out
data nothing, so copying is punished as much as poor quality or poor variety:

    FLD = -(100 / d) mean log p(held-out) - C

in features scaled to the mean and deviation of the held-out data. C is the same number for a mixture
around one half of the training data, its widths fitted to the other half, so that 0 is as good as
real data.

Departures from the code: the widths are climbed by expectation-maximisation in place of 50 steps of
Adam, in float64 and without randomness; features that are constant in the held-out data are left
out; distances are recomputed block by block, so that no number of training examples is too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Count, Whole
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._held_out import sizes, some_of, with_held_out
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate
from genbench.prob.neighbours import nearest_neighbours
from genbench.prob.widths import fit_variances, log_density

HOW = "spread over held-out examples, against the baseline's on the same ones; both mixtures held fixed"


def feature_likelihood_divergence(
    samples: Features, reference: Features, held_out: Features, *, max_samples: int = 10_000, seed: int = 0
) -> Estimate:
    """FLD in hundredths of a nat per dimension: 0 as good as training data, larger is worse, any real number.

    Formula and source: see the module.

    Args:
        samples: (N, F) finite features.
        reference: (M, F) of training examples, M > 1.
        held_out: (H, F) of real examples of the same law that no model has been trained on, H > 1.
        max_samples: more samples than this are thinned at random.
        seed: of thinning, and of the halves of the training data.

    Raises:
        ValueError: too few points, held-out features that are all constant, or features that are not finite or of
            unequal widths.
    """
    samples, reference, held_out = finite_features(samples=samples, reference=reference, held_out=held_out)
    if len(samples) < 1 or min(len(reference), len(held_out)) < 2:
        counts = f"{len(samples)}, {len(reference)} and {len(held_out)}"
        raise ValueError(f"found {counts} samples, training and held-out examples, expected at least 1, 2 and 2")
    drawn, train, unseen = _standardised(some_of(samples, max_samples, seed=seed), reference, held_out)
    nats = _nats(drawn, train, unseen)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).to(train.device)
    half = min(len(drawn), len(train) // 2)
    base = _nats(train[order[:half]], train[order[half:]], unseen)
    return mean_estimate((100.0 / drawn.shape[1] * (nats - base)).cpu().numpy(), how=HOW)


def _standardised(drawn: Tensor, train: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three sets in float64, less the mean of the last and over its deviation."""
    deviation, mean = torch.std_mean(unseen.double(), dim=0)
    kept = deviation > 0
    if not bool(kept.any()):
        raise ValueError("a feature likelihood needs held-out features that vary, found constants")
    drawn, train, unseen = ((part.double()[:, kept] - mean[kept]) / deviation[kept] for part in (drawn, train, unseen))
    return drawn, train, unseen


def _nats(centres: Tensor, train: Tensor, unseen: Tensor) -> Tensor:
    """Negative log-density of `unseen` (H, d) under the mixture around `centres` fitted to `train`: (H,)."""
    nearest = nearest_neighbours(centres, train).squared[:, 0]
    return -log_density(unseen, centres, fit_variances(centres, train, nearest))


@register_metric("feature_likelihood_divergence")
@dataclass(frozen=True)
class FeatureLikelihoodDivergence(Metric):
    """How unlikely held-out data is under Gaussians around the samples, fitted to the training data."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES, Need.HELD_OUT})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("fld", "lower", "nats/100 dims"),)
    source: ClassVar[str] = "Jiralerspong et al. 2023, arXiv:2302.04440, Eq. 2 to 4"

    max_samples: Count = 10_000
    """More samples than this are thinned at random, as in the authors' code."""
    seed: Whole = 0
    """Of thinning, and of the halves of the training data."""

    def __post_init__(self) -> None:
        if self.max_samples < 1:
            raise ValueError(f"max_samples is {self.max_samples}, expected at least 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score over at most `max_samples` samples and all examples.

        Raises:
            ValueError: too few points, features that are not finite, or constant ones.
        """
        owner = "a feature likelihood divergence"
        samples, reference, held_out = with_held_out(evidence.features, owner=owner, reference=2, held_out=2)
        assert evidence.features is not None
        counts = sizes(some_of(samples, self.max_samples, seed=self.seed), reference, held_out)
        score = scored(
            "fld",
            feature_likelihood_divergence(samples, reference, held_out, max_samples=self.max_samples, seed=self.seed),
            better="lower",
            unit=self.gives[0].unit,
            num_samples=min(len(samples), self.max_samples),
            num_reference=len(reference),
            protocol={**evidence.features.protocol, "seed": self.seed, **counts},
        )
        return (score,)
