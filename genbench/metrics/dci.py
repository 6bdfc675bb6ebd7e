"""Disentanglement, completeness and informativeness of latents, from what a predictor of each factor relies on.

With `R_dk` the importance of latent d to a predictor of factor k, taken from all latents,

    disentanglement = sum_d w_d (1 - H_K(R_d. / sum_k R_dk)),   w_d = sum_k R_dk / sum R
    completeness    = sum_k w_k (1 - H_D(R_.k / sum_d R_dk)),   w_k = sum_d R_dk / sum R

where `H_K` is the entropy to the base K; informativeness is how well the predictors do on test examples (Eastwood and
Williams 2018, Sec. 2, openreview By-7dz-AZ). The default predictor is the gradient boosting of Locatello et al. 2019
(arXiv:1811.12359), two thirds of the examples for training; Eastwood and Williams take lasso and random forests.

**Departures.** Completeness is weighted by importance, and 1e-11 is added to each before its entropy, as in the code of
Locatello et al. Informativeness is an accuracy (of lasso: the share of variance explained), not an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, cast

import numpy as np
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LassoCV

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Whole
from genbench.core.record import Score
from genbench.metrics._latents import (
    Array,
    block_estimate,
    checked_latents,
    found_latents,
    latent_protocol,
    train_and_test,
)
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate

_OWNER = "disentanglement, completeness and informativeness"

Regressor = Literal["gradient_boosting", "random_forest", "lasso"]
"""What predicts a factor from the latents."""

NUM_BLOCKS = 5
"""Disjoint parts of the training examples on which importances are found again, for the interval."""

BLOCK_STAGES = 15
"""Of the 100 of gradient boosting, in a block, for the cost. They hold 65 to 85 % of all importance; that scores from
them spread over blocks as those from 100 stages do over draws has no proof and is tested by simulation. All 100 stages
fit the noise of a block, a fifth of the examples."""

LEAST_IN_A_BLOCK = 20
"""Fewer examples fit no predictor worth the name, and lasso's five folds none at all."""

TINY = 1e-11
"""Added to importances before their entropy is taken, as in the code of Locatello et al. 2019."""


def dci(
    codes: Array, factors: Array, *, regressor: Regressor = "gradient_boosting", seed: int = 0
) -> dict[str, Estimate]:
    """`disentanglement`, `completeness` and `informativeness`, each 0 .. 1 (the last below 0 for a useless lasso).

    One predictor a factor is fitted to all training examples and one to each of five blocks of them. Gradient boosting
    grows 100 trees for each value of a factor, and in a block the first 15 of them, which adds 17 % to the cost at
    10,000 examples and 27 % at 1500; for the other predictors blocks about double it.

    Args:
        codes: (N, D) float, D at least 2.
        factors: (N, K) int, K at least 2.
        regressor: what predicts.
        seed: of the split and of the predictors.

    Returns:
        Estimates. The first two have Student intervals over the five blocks; informativeness has the spread over
        test examples, with the predictors held fixed.

    Raises:
        ValueError: too few latents, factors or examples, codes that are not finite, a factor with a single value in
            some block.
    """
    least = NUM_BLOCKS * LEAST_IN_A_BLOCK * 3 // 2
    z, values = checked_latents(codes, factors, owner=_OWNER, examples=least, latents=2, num_factors=2)
    z = _standardised(z.astype(np.float64))
    train, test = train_and_test(len(z), seed=seed)
    fit, blocks = _FITS[regressor], np.array_split(train, NUM_BLOCKS)
    _refuse_constant([values[part] for part in (*blocks, test)])
    importances, right = _fitted(fit, z[train], values[train], z[test], values[test], seed)
    again = _BLOCK_FITS.get(regressor, fit)
    parts = [_fitted(again, z[part], values[part], z[:0], values[:0], seed)[0] for part in blocks]
    how = f"Student over {NUM_BLOCKS} disjoint blocks of training examples"
    how += f", of {BLOCK_STAGES} stages each" if again is not fit else ""
    found = {
        name: block_estimate(measure(importances), [measure(part) for part in parts], how=how, low=0.0, high=1.0)
        for name, measure in (("disentanglement", disentanglement), ("completeness", completeness))
    }
    how = "spread over test examples; predictors held fixed"
    return {**found, "informativeness": mean_estimate(right, how=how, high=1.0)}


def disentanglement(importances: np.ndarray) -> float:
    """How far each latent matters to one factor only, from importances (D, K) >= 0: 0 .. 1."""
    each = 1.0 - entropy(importances.T + TINY, base=importances.shape[1])
    return min(1.0, max(0.0, float(each @ _weights(importances.sum(1)))))


def completeness(importances: np.ndarray) -> float:
    """How far each factor is held by one latent only, from importances (D, K) >= 0: 0 .. 1."""
    return disentanglement(importances.T)


@register_metric("dci")
@dataclass(frozen=True)
class DCI(Metric):
    """Does a latent matter to one factor, is a factor held by one latent, are factors told at all? Slow: fits trees."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LATENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("disentanglement", "higher"),
        ScoreName("completeness", "higher"),
        ScoreName("informativeness", "higher"),
    )
    source: ClassVar[str] = "Eastwood and Williams 2018, openreview By-7dz-AZ, Sec. 2"

    regressor: Regressor = "gradient_boosting"
    """What predicts a factor: the trees of Locatello et al. 2019, or `random_forest` or `lasso`."""
    seed: Whole = 0
    """Of the split and of the predictors."""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Three scores.

        Raises:
            ValueError: as the function says.
        """
        found = found_latents(evidence.latents, owner=_OWNER)
        estimates = dci(found.codes, found.factors, regressor=self.regressor, seed=self.seed)
        protocol = {**latent_protocol(found), "regressor": self.regressor, "seed": self.seed}
        num = len(found.codes)
        return tuple(
            scored(name, estimate, better="higher", num_samples=num, protocol=protocol)
            for name, estimate in estimates.items()
        )


class _Trees(Protocol):
    feature_importances_: np.ndarray

    def fit(self, x: np.ndarray, y: np.ndarray) -> object: ...

    def predict(self, x: np.ndarray) -> np.ndarray: ...


def _boosted(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> _Fit:
    return _by_trees(cast("_Trees", GradientBoostingClassifier(random_state=seed)), x, y, x_test, y_test)


def _boosted_briefly(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> _Fit:
    trees = GradientBoostingClassifier(random_state=seed, n_estimators=BLOCK_STAGES)
    return _by_trees(cast("_Trees", trees), x, y, x_test, y_test)


def _forest(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> _Fit:
    return _by_trees(cast("_Trees", RandomForestClassifier(random_state=seed)), x, y, x_test, y_test)


def _by_trees(trees: _Trees, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> _Fit:
    trees.fit(x, y)
    right = trees.predict(x_test) == y_test if len(x_test) else np.empty(0)
    return np.abs(trees.feature_importances_), right.astype(np.float64)


def _lasso(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> _Fit:
    """Coefficients, and terms of the share of variance explained: their mean is 1 - residual / variance."""
    line = LassoCV(cv=5, random_state=seed).fit(x, y)
    residual = (y_test - line.predict(x_test)) ** 2 if len(x_test) else np.empty(0)
    return np.abs(line.coef_), 1.0 - residual / (np.var(y_test) if len(x_test) else 1.0)


_Fit = tuple[np.ndarray, np.ndarray]
"""Importances (D,) and what each test example adds to the informativeness (n,)."""

_FITS: dict[Regressor, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], _Fit]] = {
    "gradient_boosting": _boosted,
    "random_forest": _forest,
    "lasso": _lasso,
}
_BLOCK_FITS: dict[Regressor, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], _Fit]] = {
    "gradient_boosting": _boosted_briefly
}
"""Where blocks have a cheaper one."""


def _fitted(
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], _Fit],
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Importances (D, K), and informativeness of each test example, mean over factors: (n,)."""
    columns, right = [], []
    for k in range(y.shape[1]):
        importance, done = fit(x, y[:, k], x_test, y_test[:, k], seed)
        columns.append(importance)
        right.append(done)
    return np.stack(columns, axis=1), np.mean(right, axis=0)


def _refuse_constant(parts: Sequence[np.ndarray]) -> None:
    for part in parts:
        constant = np.flatnonzero((part == part[0]).all(0))
        if len(constant):
            raise ValueError(
                f"{_OWNER} need 2 values of factor {constant[0]} in each part of the examples, found 1 in a part of "
                f"{len(part)}"
            )


def _weights(sums: np.ndarray) -> np.ndarray:
    """Shares of a total; equal where nothing matters."""
    total = float(sums.sum())
    return sums / total if total > 0.0 else np.full(len(sums), 1.0 / len(sums))


def _standardised(z: np.ndarray) -> np.ndarray:
    """Unit variance, which trees do not see and lasso needs."""
    spread = z.std(0)
    return np.asarray((z - z.mean(0)) / np.where(spread > 0.0, spread, 1.0))
