"""Classifier two-sample test: can a classifier tell samples from held-out points?

Samples and reference points, as many of each, are labelled and split in halves; a classifier learns on one half, and
its accuracy on the other is the statistic. Where the laws are equal it is 1/2 in the mean, and for n test points its
law is N(1/2, 1/(4n)) (Lopez-Paz and Oquab 2017, arXiv:1610.06545, Sec. 3), which gives the p-value against the
alternative that the classifier can tell. The default is their k nearest neighbours with k = floor(sqrt(n_train));
the network has their size, one hidden layer of 20 rectified units, and stops by a tenth of its training points.

Accuracy itself is scored, the lower the better: 0.5 where nothing can be told. With `five_fold` every point is tested
once, at the price of a law that is only nearly binomial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, cast

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from genbench.core.metric import Evidence, Metric, Need, ScoreName, VectorEvidence, register_metric
from genbench.core.ranges import Whole
from genbench.core.record import Better, Score
from genbench.core.spec import Scalar
from genbench.metrics._scores import scored
from genbench.metrics._vectors import Array, checked_points, found_vectors, subset
from genbench.prob.intervals import Estimate, share_interval

_OWNER = "a classifier two-sample test"

LEAST = 20
"""Points on a side: 10 of each to learn from, and 20 test points for the normal law of the accuracy."""

Classifier = Literal["knn", "logistic", "mlp"]
"""What tries to tell the two sets apart."""

Split = Literal["half", "five_fold"]
"""Which points are tested: a random half, as in the paper, or each once."""


def classifier_two_sample(
    x: Array, y: Array, *, classifier: Classifier = "knn", split: Split = "half", seed: int = 0
) -> dict[str, Estimate]:
    """`accuracy` on held-out points, 0 .. 1 and 0.5 where nothing can be told, and `p_value` of equal laws.

    Args:
        x: (N, D) float, samples.
        y: (M, D) float, reference points; of the larger set a random subset of the smaller one's size is used.
        classifier: `knn`, `logistic` or `mlp`, the last two on coordinates standardised by the training points.
        split: `half` or `five_fold`.
        seed: of the subset, the split and the network.

    Returns:
        Estimates. The accuracy has Wilson's interval over test points, with the classifier held fixed; the p-value is
        one-sided and has none.

    Raises:
        ValueError: fewer than 20 points on a side, unequal widths, or points that are not finite.
    """
    first, second = checked_points(x, y, owner=_OWNER, points=LEAST)
    rng = np.random.default_rng(seed)
    count = min(len(first), len(second))
    points = np.concatenate([subset(first, count, rng=rng), subset(second, count, rng=rng)])
    labels = np.repeat([1, 0], count)
    right = np.concatenate(
        [
            _right(classifier, points[train], labels[train], points[test], labels[test], seed)
            for train, test in _splits(count, split, rng)
        ]
    )
    share, num = float(right.mean()), len(right)
    stderr = math.sqrt(share * (1.0 - share) / num)
    p_value = float(norm.sf((share - 0.5) * 2.0 * math.sqrt(num)))
    how = "Wilson over test points; classifier held fixed"
    return {"accuracy": Estimate(share, stderr, share_interval(share, num), how), "p_value": Estimate(p_value)}


@register_metric("classifier_two_sample")
@dataclass(frozen=True)
class ClassifierTwoSample(Metric):
    """Held-out accuracy of a classifier of samples against held-out points, and the p-value that it is chance."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.VECTORS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("c2st", "lower", "share"),
        ScoreName("c2st_p_value", "higher"),
    )
    source: ClassVar[str] = "Lopez-Paz and Oquab 2017, arXiv:1610.06545, Sec. 3"

    classifier: Classifier = "knn"
    """k nearest neighbours with k = floor(sqrt(n_train)), as in the paper; or `logistic`, or a small network, `mlp`."""
    split: Split = "half"
    """`half`: learn on one half, test on the other, as in the paper; `five_fold`: test every point once."""
    seed: Whole = 0

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores.

        Raises:
            ValueError: as the function says.
        """
        found = found_vectors(evidence.vectors, owner=_OWNER)
        estimates = classifier_two_sample(
            found.samples, found.reference, classifier=self.classifier, split=self.split, seed=self.seed
        )
        return (
            self._score("c2st", estimates["accuracy"], "lower", "share", found),
            self._score("c2st_p_value", estimates["p_value"], "higher", "", found),
        )

    def _score(self, name: str, estimate: Estimate, better: Better, unit: str, found: VectorEvidence) -> Score:
        num, against = len(found.samples), len(found.reference)
        protocol: dict[str, Scalar] = {
            "classifier": self.classifier,
            "split": self.split,
            "seed": self.seed,
            "num_samples": num,
            "num_reference": against,
        }
        return scored(
            name, estimate, better=better, unit=unit, num_samples=num, num_reference=against, protocol=protocol
        )


class _Learner(Protocol):
    def fit(self, x: np.ndarray, y: np.ndarray) -> object: ...

    def predict(self, x: np.ndarray) -> np.ndarray: ...


def _splits(count: int, split: Split, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test indices, with as many points of either set in each part, but for one."""
    num_folds = 2 if split == "half" else 5
    pairs = [np.array_split(start + rng.permutation(count), num_folds) for start in (0, count)]
    folds = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
    tested = folds[:1] if split == "half" else folds
    return [(np.concatenate(folds[:i] + folds[i + 1 :]), test) for i, test in enumerate(tested)]


def _right(
    name: Classifier, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> np.ndarray:
    """Whether each test point is told rightly: (n,) bool."""
    if name != "knn":
        middle, spread = x.mean(0), x.std(0)
        x, x_test = ((part - middle) / np.where(spread > 0.0, spread, 1.0) for part in (x, x_test))
    learner = _learner(name, len(x), seed)
    learner.fit(x, y)
    return np.asarray(learner.predict(x_test) == y_test)


def _learner(name: Classifier, num_train: int, seed: int) -> _Learner:
    if name == "knn":
        found: object = KNeighborsClassifier(n_neighbors=math.isqrt(num_train))
    elif name == "logistic":
        found = LogisticRegression()
    else:
        found = MLPClassifier(
            hidden_layer_sizes=(20,),
            batch_size=min(32, num_train // 2),
            learning_rate_init=0.01,
            early_stopping=True,
            n_iter_no_change=20,
            max_iter=1000,
            random_state=seed,
        )
    return cast("_Learner", found)
