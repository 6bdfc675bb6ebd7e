"""Mean perceptual distance between two samples: how different the samples are from one another.

    diversity              = mean over disjoint random pairs of d(x_i, x_j)
    diversity within class = (1 / C) sum_c mean over disjoint random pairs of class c of d(x_i, x_j)

d is LPIPS (Zhang et al. 2018, arXiv:1801.03924, Eq. 1); the mean over random pairs as a measure of
diversity is that of Zhu et al. 2017, arXiv:1711.11586 (within one input), and of Choi et
al. 2020, arXiv:1912.01865. Disjoint pairs are independent, so the spread over pairs gives
the standard error. Higher is not always better: noise is more diverse than pictures, so the number
to come near is that of real data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, PairEvidence, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate, normal_interval


def lpips_diversity(distances: Tensor) -> Estimate:
    """Mean distance of disjoint random pairs of samples, not negative.

    Args:
        distances: (P,) float, P at least 2.

    Raises:
        ValueError: fewer than 2 pairs, or distances that are negative or not finite.
    """
    return mean_estimate(_checked(distances), how="spread over disjoint pairs", low=0.0)


def lpips_diversity_within_class(distances: Tensor, classes: Tensor) -> Estimate:
    """Mean over classes of the mean distance of two samples of one class, not negative.

    Classes count equally however many pairs they have; the standard error is stratified, with one variance for all
    classes where a class has a single pair.

    Args:
        distances: (P,) float, of disjoint pairs whose members are of one class.
        classes: (P,) integers, the class of each pair.

    Raises:
        ValueError: unequal counts, no class with 2 pairs, or distances that are negative or not finite.
    """
    values, labels = _checked(distances), classes.cpu().numpy()
    if labels.shape != values.shape:
        raise ValueError(f"{len(values)} pairs of samples have {len(labels)} classes, expected one each")
    _, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.max() < 2:
        raise ValueError(f"diversity within classes needs a class with at least 2 pairs, found {len(counts)} with 1")
    means = np.bincount(group, weights=values) / counts
    squares = np.bincount(group, weights=(values - means[group]) ** 2)
    pooled = squares.sum() / (len(values) - len(counts))
    variances = np.where(counts > 1, squares / np.maximum(counts - 1, 1), pooled)
    value, error = float(means.mean()), math.sqrt(float((variances / counts).sum())) / len(counts)
    return Estimate(value, error, normal_interval(value, error, low=0.0), "stratified spread over disjoint pairs")


@register_metric("lpips_diversity")
@dataclass(frozen=True)
class LPIPSDiversity(Metric):
    """One mean over all samples, and one within classes where the samples have them."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("lpips_diversity", "higher"),
        ScoreName("lpips_diversity_within_class", "higher"),
    )
    source: ClassVar[str] = "Zhang et al. 2018, arXiv:1801.03924, Eq. 1; Zhu et al. 2017, arXiv:1711.11586"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, and one within classes where there are pairs of them.

        Raises:
            ValueError: no pairs, or those that the functions above refuse.
        """
        found = [pairs for pairs in (evidence.pairs, evidence.class_pairs) if pairs is not None]
        if not found:
            raise ValueError("diversity needs perceptual distances of at least 2 pairs of samples, found 0")
        return tuple(self._of(pairs) for pairs in found)

    def _of(self, pairs: PairEvidence) -> Score:
        if pairs.classes is None:
            return self._score("lpips_diversity", lpips_diversity(pairs.distances), pairs)
        within = lpips_diversity_within_class(pairs.distances, pairs.classes)
        return self._score("lpips_diversity_within_class", within, pairs)

    def _score(self, name: str, estimate: Estimate, pairs: PairEvidence) -> Score:
        protocol = {**pairs.protocol, "extractor": pairs.extractor}
        if pairs.classes is not None:
            protocol["num_classes"] = len(pairs.classes.unique())
        return scored(name, estimate, better="higher", num_samples=2 * len(pairs.distances), protocol=protocol)


def _checked(distances: Tensor) -> np.ndarray:
    """Distances (P,) as float64."""
    values = distances.detach().double().cpu().numpy()
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"diversity needs perceptual distances of at least 2 pairs of samples, found shape {values.shape}"
        )
    if not np.isfinite(values).all() or values.min() < 0.0:
        raise ValueError("diversity needs finite distances that are not negative, found others")
    return np.asarray(values)
