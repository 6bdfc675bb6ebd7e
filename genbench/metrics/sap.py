"""Separated attribute predictability: how much better the best latent predicts a factor than the second best.

    SAP = mean_k (S_ak - S_bk)

with `S_dk` how well latent d alone predicts factor k, and a, b the best two latents (Kumar et al. 2018,
arXiv:1711.00848, Sec. 3). For discrete factors `S` is the test accuracy of a linear support vector machine with
C = 0.01 and balanced classes, two thirds of the examples for training: the default, as in Locatello et al. 2019
(arXiv:1811.12359). One line tells a value from the rest only at the ends of a latent, so a perfect code of a factor
with more than two values scores below 1. For continuous factors `S` is the squared correlation over all examples.

Accuracies come from n test examples, a third of all, so with K discrete factors the score is a whole multiple of
1 / (n K). Few examples give few values, and weak codes of two models may well have the same one: of 128 examples with 5
factors, multiples of 1 / 215 = 0.00465. The interval says how little such a tie means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from sklearn.svm import LinearSVC

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Whole
from genbench.core.record import Score
from genbench.metrics._latents import Array, checked_latents, found_latents, latent_protocol, top_two, train_and_test
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate

_OWNER = "the separated attribute predictability"

Preset = Literal["discrete", "continuous"]
"""What factors are taken for."""

PENALTY = 0.01
"""C of the support vector machine in Locatello et al. 2019."""

CONSTANT = 1e-12
"""Variance below which a latent predicts nothing, as in the published code."""


def sap(codes: Array, factors: Array, *, preset: Preset = "discrete", seed: int = 0) -> Estimate:
    """Mean over factors of the gap between the two most predictive latents: 0 .. 1.

    Args:
        codes: (N, D) float, D at least 2.
        factors: (N, K) int.
        preset: `discrete`, accuracy of a support vector machine; `continuous`, squared correlation.
        seed: of the split; unused where factors are continuous.

    Returns:
        The estimate. Its error is the spread over test examples with the machines held fixed, or the infinitesimal
        jackknife over examples; either way with the choice of the two latents held fixed.

    Raises:
        ValueError: fewer than 2 latents or 6 examples, codes that are not finite, a constant factor, or one with a
            single value in the training part.
    """
    z, values = checked_latents(codes, factors, owner=_OWNER, examples=6, latents=2)
    if preset == "continuous":
        return _from_correlations(z.astype(np.float64), values.astype(np.float64))
    return _from_classifiers(z.astype(np.float64), values, *train_and_test(len(z), seed=seed))


@register_metric("sap")
@dataclass(frozen=True)
class SAP(Metric):
    """Gap in predictive power between the two best single latents for each factor; costs a fit for every pair."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LATENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("sap", "higher"),)
    source: ClassVar[str] = "Kumar et al. 2018, arXiv:1711.00848, Sec. 3"

    preset: Preset = "discrete"
    """`discrete`: a linear support vector machine for each pair; `continuous`: squared correlation."""
    seed: Whole = 0
    """Of the split into training and test examples."""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: as the function says.
        """
        found = found_latents(evidence.latents, owner=_OWNER)
        estimate = sap(found.codes, found.factors, preset=self.preset, seed=self.seed)
        protocol = {**latent_protocol(found), "preset": self.preset, "seed": self.seed}
        return (scored("sap", estimate, better="higher", num_samples=len(found.codes), protocol=protocol),)


def _from_classifiers(z: np.ndarray, values: np.ndarray, train: np.ndarray, test: np.ndarray) -> Estimate:
    gaps = np.zeros(len(test))
    for k in range(values.shape[1]):
        y, asked = values[train, k], values[test, k]
        if (y == y[0]).all():
            raise ValueError(f"{_OWNER} needs 2 values of factor {k} in its training part, found 1")
        right = np.stack([_right(z[train, d, None], y, z[test, d, None], asked) for d in range(z.shape[1])])
        first, second = top_two(right.mean(1, keepdims=True))
        gaps += (right[first[0]] - right[second[0]]) / values.shape[1]
    return mean_estimate(gaps, how="spread over test examples; classifiers held fixed", low=0.0, high=1.0)


def _right(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> np.ndarray:
    """Whether each test example is classified rightly: (n,) of 0 and 1."""
    machine = LinearSVC(C=PENALTY, class_weight="balanced", dual=False).fit(x, y)
    return np.asarray(machine.predict(x_test) == y_test, dtype=np.float64)


def _from_correlations(z: np.ndarray, values: np.ndarray) -> Estimate:
    """The influence of an example on a correlation of standardised x, y is x y - r (x^2 + y^2) / 2."""
    x, y = _standardised(z), _standardised(values)
    r = x.T @ y / len(x)  # (D, K)
    first, second = top_two(r**2)
    each = np.arange(values.shape[1])
    gaps = r[first, each] ** 2 - r[second, each] ** 2
    influence = np.zeros(len(x))
    for best, sign in ((first, 1.0), (second, -1.0)):
        found, chosen = r[best, each], x[:, best]
        influence += sign * (2.0 * found * (chosen * y - 0.5 * found * (chosen**2 + y**2))).mean(1)
    how = "infinitesimal jackknife over examples"
    return mean_estimate(influence + float(gaps.mean()), how=how, low=0.0, high=1.0)


def _standardised(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1; constant ones become 0."""
    middle, variance = x - x.mean(0), x.var(0, ddof=1)
    scale = np.sqrt(np.where(variance > CONSTANT, x.var(0), np.inf))
    return np.asarray(middle / scale)
