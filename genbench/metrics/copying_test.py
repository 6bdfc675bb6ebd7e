"""Data-copying test C_T: are samples nearer to the training data than unseen real data are?

Space is cut into cells by k-means on the training features (of their first 64 principal components
where there are more). In each cell, the distances of samples and of held-out examples to the nearest
training example *of that cell* are compared by a Mann-Whitney test, z of the samples' being larger:

    C_T = sum_cells P(cell) z(cell) / sum_cells P(cell),    P: share of the held-out examples,

over the cells with more than 20 samples (Meehan et al. 2020, arXiv:2004.05675, Eq. 4 and Algorithm 1). Far below 0: the
model copies; far above: it underfits; about 0 is best. `copying_p` is the one-sided chance of a C_T
as low without copying: cells are independent, so C_T has variance sum P^2 / (sum P)^2 there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Count, Whole
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._given_scores import given_scores
from genbench.metrics._held_out import sizes, with_held_out
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.neighbours import nearest_neighbours
from genbench.prob.rank_test import RankTest, rank_test

HOW = "DeLong's variance of each cell's rank test; cells and training examples held fixed"
COMPONENTS = 64
LEAST_SAMPLES = 20
"""Cells with no more samples than this are left out."""
_STARTS = 10
"""Of k-means; the best is kept."""


def copying_test(
    samples: Features, reference: Features, held_out: Features, *, num_cells: int = 3, seed: int = 0
) -> dict[str, Estimate]:
    """`copying_test` (a z-score, any real number) and `copying_p` (0 .. 1).

    Formula and source: see the module.

    Args:
        samples: (N, F) finite features.
        reference: (M, F) of training examples.
        held_out: (H, F) of real examples of the same law that no model has been trained on.
        num_cells: at least 1.
        seed: of k-means and of the principal components.

    Raises:
        ValueError: no cell has more than 20 samples, a cell has no held-out example, or features are not finite or
            of unequal widths.
    """
    samples, reference, held_out = finite_features(samples=samples, reference=reference, held_out=held_out)
    train, unseen, drawn = _components(reference, held_out, samples, seed=seed)
    if len(train) < num_cells:
        raise ValueError(f"{num_cells} cells need as many training examples, found {len(train)}")
    cells = KMeans(num_cells, n_init=_STARTS, random_state=seed).fit(train)
    own, theirs, ours = cells.labels_, cells.predict(unseen), cells.predict(drawn)
    weights, tests = [], []
    for cell in range(num_cells):
        if int((ours == cell).sum()) <= LEAST_SAMPLES:
            continue
        if not (theirs == cell).any():
            raise ValueError(f"one of {num_cells} cells has no held-out example: take fewer cells or more examples")
        weights.append(float((theirs == cell).mean()))
        tests.append(_within(train[own == cell], unseen[theirs == cell], drawn[ours == cell]))
    if not tests:
        raise ValueError(
            f"a data-copying test needs more than {LEAST_SAMPLES} samples in one of {num_cells} cells, "
            f"found {len(samples)} samples in all"
        )
    return _combined(np.array(weights), tests)


def _components(*sets: Tensor, seed: int) -> list[np.ndarray]:
    """The first 64 principal components of the first set, or the features where there are no more."""
    values = [part.double().cpu().numpy() for part in sets]
    size = min(COMPONENTS, len(values[0]))
    if values[0].shape[1] <= size:
        return values
    axes = PCA(n_components=size, random_state=seed).fit(values[0])
    return [np.asarray(axes.transform(part)) for part in values]


def _within(train: np.ndarray, unseen: np.ndarray, drawn: np.ndarray) -> RankTest:
    """The rank test of one cell."""
    target = torch.from_numpy(train)
    distances = [nearest_neighbours(torch.from_numpy(part), target).squared[:, 0].numpy() for part in (drawn, unseen)]
    return rank_test(*distances)


def _combined(weights: np.ndarray, tests: list[RankTest]) -> dict[str, Estimate]:
    weights = weights / weights.sum()
    value = float(weights @ np.array([test.z for test in tests]))
    stderr = float(np.linalg.norm(weights * np.array([test.stderr for test in tests])))
    chance = float(stats.norm.cdf(value / math.sqrt(float(weights @ weights))))
    return {
        "copying_test": Estimate(value, stderr, normal_interval(value, stderr), HOW),
        "copying_p": Estimate(chance, how="none: a probability itself, by the normal approximation"),
    }


@register_metric("copying_test")
@dataclass(frozen=True)
class CopyingTest(Metric):
    """Data-copying test C_T, a z-score: far below 0 for copies, far above 0 for a poor fit."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES, Need.HELD_OUT})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("copying_test", "higher"), ScoreName("copying_p", "higher"))
    source: ClassVar[str] = "Meehan et al. 2020, arXiv:2004.05675, Eq. 4"

    num_cells: Count = 3
    """Cells of k-means."""
    seed: Whole = 0
    """Of k-means."""

    def __post_init__(self) -> None:
        if self.num_cells < 1:
            raise ValueError(f"num_cells is {self.num_cells}, expected at least 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores over all samples.

        Raises:
            ValueError: too few samples or examples, or features that are not finite.
        """
        owner = "a data-copying test"
        samples, reference, held_out = with_held_out(
            evidence.features, owner=owner, samples=LEAST_SAMPLES + 1, reference=self.num_cells, held_out=1
        )
        assert evidence.features is not None
        counts = sizes(samples, reference, held_out)
        protocol = {**evidence.features.protocol, "num_cells": self.num_cells, "seed": self.seed, **counts}
        found = copying_test(samples, reference, held_out, num_cells=self.num_cells, seed=self.seed)
        return given_scores(
            self.gives, found, num_samples=len(samples), num_reference=len(reference), protocol=protocol
        )
