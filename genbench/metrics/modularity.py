"""Modularity and explicitness of latents.

A latent is modular when it tells about one factor only. With `I_dk` the mutual information of latent d and factor k
and m the factor that latent d tells most about,

    modularity = mean_d [1 - sum_{k != m} I_dk^2 / (I_dm^2 (K - 1))]

and a representation is explicit when a linear classifier reads the factors off it: the area under its ROC curve, one
value against the rest, mean over values and factors (Ridgeway and Mozer 2018, arXiv:1802.05312, Sec. 3). Binning, the
split and the classifier are those of Locatello et al. 2019 (arXiv:1811.12359): 20 bins of equal width, a
third of the examples for the test, logistic regression on standardised codes.

**Departures.** A latent that tells nothing scores 0, as in Locatello et al.; a latent of pure noise does not: its
mutual informations are bias alone, whose ratios are far from 1. Mutual information is taken from all examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Several, Whole
from genbench.core.record import Score
from genbench.metrics._latents import Array, checked_latents, found_latents, latent_protocol, train_and_test
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate, normal_interval
from genbench.prob.mutual_information import histogram_bins, mutual_information

MAX_STEPS = 1000
"""Of the logistic regression's optimiser; a few dozen are usual, more where classes are separable."""


def modularity(codes: Array, factors: Array, *, num_bins: int = 20) -> Estimate:
    """Mean over latents of how much each tells about its best factor alone: 0 .. 1.

    Args:
        codes: (N, D) float.
        factors: (N, K) int, K at least 2.
        num_bins: of equal width between the extremes of each latent.

    Returns:
        The estimate; its error is the delete-one jackknife over examples, with bins held fixed.

    Raises:
        ValueError: fewer than 2 factors or examples, codes that are not finite, or a constant factor.
    """
    z, values = checked_latents(codes, factors, owner="modularity", num_factors=2)
    found = mutual_information(histogram_bins(z, num_bins), values)
    informations = found.values
    best, each = informations.argmax(1), np.arange(len(informations))
    most = informations[each, best]
    told = most > 0.0
    most = np.where(told, most, 1.0)[:, None]
    ratios = np.where(told[:, None], informations / most, 0.0)
    ratios[each, best] = 0.0
    scale = 1.0 / (informations.shape[1] - 1)
    scores = np.where(told, 1.0 - scale * (ratios**2).sum(1), 0.0)
    weights = -2.0 * scale * ratios / most
    weights[each, best] = 2.0 * scale * (ratios**2).sum(1) / most[:, 0]
    pulls = found.pull(weights / len(each), np.zeros(informations.shape[1]))
    value, stderr = float(scores.mean()), float(pulls.std(ddof=1)) / math.sqrt(len(z))
    how = "delete-one jackknife over examples; bins held fixed"
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0, high=1.0), how)


def explicitness(codes: Array, factors: Array, *, seed: int = 0) -> Estimate:
    """Mean area under the ROC curve of a linear classifier of each factor on held-out examples: 0.5 by chance, 1 best.

    Args:
        codes: (N, D) float.
        factors: (N, K) int.
        seed: of the split into two thirds for training and one for the test.

    Returns:
        The estimate; its error is the spread of DeLong's placements over test examples, classifiers held fixed.

    Raises:
        ValueError: as for `modularity`, or the test third shows a value that the training part lacks.
    """
    z, values = checked_latents(codes, factors, owner="explicitness", examples=6)
    train, test = train_and_test(len(z), seed=seed)
    middle, spread = z[train].mean(0), z[train].std(0)
    scaled = (z - middle) / np.where(spread > 0.0, spread, 1.0)
    placements = [
        _placements(scaled[train], values[train, k], scaled[test], values[test, k]) for k in range(values.shape[1])
    ]
    how = "DeLong's placements over test examples; classifiers held fixed"
    return mean_estimate(np.mean(placements, axis=0), how=how, low=0.0, high=1.0)


@register_metric("modularity")
@dataclass(frozen=True)
class Modularity(Metric):
    """Whether each latent tells about one factor alone, and whether a linear classifier can read the factors."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LATENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("modularity", "higher"), ScoreName("explicitness", "higher"))
    source: ClassVar[str] = "Ridgeway and Mozer 2018, arXiv:1802.05312, Sec. 3"

    num_bins: Several = 20
    """Of equal width, for each latent; 20 in Locatello et al. 2019."""
    seed: Whole = 0
    """Of the split for explicitness."""

    def __post_init__(self) -> None:
        if self.num_bins < 2:
            raise ValueError(f"num_bins is {self.num_bins}, expected at least 2")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores.

        Raises:
            ValueError: as the functions say.
        """
        found = found_latents(evidence.latents, owner="modularity")
        shared, num = latent_protocol(found), len(found.codes)
        first = modularity(found.codes, found.factors, num_bins=self.num_bins)
        second = explicitness(found.codes, found.factors, seed=self.seed)
        binned = {**shared, "estimator": "plug-in on a histogram", "num_bins": self.num_bins}
        split = {**shared, "classifier": "logistic regression", "seed": self.seed}
        return (
            scored("modularity", first, better="higher", num_samples=num, protocol=binned),
            scored("explicitness", second, better="higher", num_samples=num, protocol=split),
        )


def _placements(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> np.ndarray:
    """Values (n,) whose mean is the area under the ROC curve, mean over classes, and whose spread is its error."""
    shown = np.unique(y_test)
    if len(shown) < 2 or not np.isin(shown, y).all():
        raise ValueError(
            f"explicitness needs every factor value in both parts of the examples, found values {shown.tolist()} in "
            f"the test part and {np.unique(y).tolist()} in the training part"
        )
    classifier = LogisticRegression(max_iter=MAX_STEPS).fit(x, y)
    chances = classifier.predict_proba(x_test)
    columns = np.searchsorted(classifier.classes_, shown)
    each = [_area_placements(chances[:, c], y_test == v) for c, v in zip(columns, shown, strict=True)]
    return np.asarray(np.mean(each, axis=0))


def _area_placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under one ROC curve plus each example's influence on it: (n,) (DeLong et al. 1988)."""
    num, hits = len(scores), int(positive.sum())
    ranks, within = rankdata(scores), np.empty(len(scores))
    within[positive], within[~positive] = rankdata(scores[positive]), rankdata(scores[~positive])
    below = np.where(positive, ranks - within, hits - (ranks - within))  # examples of the other side on the right side
    share = below / np.where(positive, num - hits, hits)
    area = float(share[positive].mean())
    return area + (share - area) * np.where(positive, num / hits, num / (num - hits))
