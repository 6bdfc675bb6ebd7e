"""Alpha-precision and beta-recall: fidelity and variety by how typical samples and real examples are.

With c the mean of the real examples and R_a the a-quantile of their distances to c,

    P_a = share of samples within R_a of c                     (equals a for samples of the real law)
    B_b = share of real examples that have a sample nearer than their nearest other real example,
          that sample being one of the b most typical
    alpha_precision = 1 - 2 integral |P_a - a| da,    beta_recall likewise with B_b,

the integral over 30 values from 0 to 1 (Alaa et al. 2022, arXiv:2102.08921, Sec. 3 and Eq. 9). How
typical the nearest samples are is their distance to the samples' mean, by rank among one another, as
in the authors' code.

    preset `alaa`       1 - 2 sum |P_a - a| / 29: the paper and its code (the default)
    preset `synthcity`  1 - sum |P_a - a| / sum a

Departure: distances are measured in the given features; the paper first trains a one-class network
that maps real data into a ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Whole
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._held_out import sizes
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.neighbours import nearest_neighbours, nearest_others

Preset = Literal["alaa", "synthcity"]
LEVELS = 30
DRAWS = 200
HOW_PRECISION = f"bootstrap over samples and reference, {DRAWS} draws; centre held fixed"
HOW_RECALL = f"bootstrap over reference, {DRAWS} draws, and half the delete-one jackknife over samples"
_BLOCK = 4096  # rows measured at once


def alpha_precision(samples: Features, reference: Features, *, preset: Preset = "alaa", seed: int = 0) -> Estimate:
    """Alpha-precision, at most about 1 (samples of the real law); a law far off has about 0.

    Formula and source: see the module.

    Args:
        samples: (N, F) finite features.
        reference: (M, F), M > 1.
        preset: see the module.
        seed: of the bootstrap.

    Raises:
        ValueError: no sample, fewer than 2 real examples, or features that are not finite or of unequal widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    _check(samples, reference)
    centre = reference.double().mean(dim=0)
    real, drawn = np.sort(_distances(reference, centre)), np.sort(_distances(samples, centre))
    value = _score(_typical(real, drawn), preset)
    generator = np.random.default_rng(seed)
    draws = [_score(_typical(_redrawn(real, generator), _redrawn(drawn, generator)), preset) for _ in range(DRAWS)]
    stderr = float(np.std(draws, ddof=1))
    return Estimate(value, stderr, normal_interval(value, stderr, high=1.0), HOW_PRECISION)


def beta_recall(samples: Features, reference: Features, *, preset: Preset = "alaa", seed: int = 0) -> Estimate:
    """Beta-recall, at most about 1: copies of the real examples; samples of the real law, as many, have about 1/2.

    Formula and source: see the module; arguments as of `alpha_precision`.

    Raises:
        ValueError: fewer than 2 samples or real examples, or features as there.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    _check(samples, reference, least=2)
    nearest = nearest_neighbours(reference, samples, k=2)
    own = nearest_others(reference).squared[:, :1]
    hit = (nearest.squared <= own).cpu().numpy()  # (M, 2): by the nearest sample, and were it gone
    depth = _distances(samples, samples.double().mean(dim=0))[nearest.index.cpu().numpy()]
    covered = _covered(hit[:, 0], depth[:, 0])
    value = _score(covered, preset)
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        row = generator.integers(len(hit), size=len(hit))
        draws.append(_score(_covered(hit[row, 0], depth[row, 0]), preset))
    # What each real example adds to the score, by its nearest sample and by the second nearest.
    radii = np.quantile(depth[:, 0], _levels())
    slopes = np.sign(_levels() - covered) * _weight(preset)
    adds = (hit[:, :, None] & (depth[:, :, None] <= radii)) @ slopes / len(hit)
    losses = np.bincount(nearest.index[:, 0].cpu().numpy(), weights=adds[:, 0] - adds[:, 1], minlength=len(samples))
    variance = float(np.var(draws, ddof=1)) + 0.5 * (len(samples) - 1) * float(losses.var())
    return Estimate(value, variance**0.5, normal_interval(value, variance**0.5, high=1.0), HOW_RECALL)


@register_metric("alpha_precision")
@dataclass(frozen=True)
class AlphaPrecision(Metric):
    """Alpha-precision and beta-recall: are samples as typical as real examples, and as varied?"""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("alpha_precision", "higher"),
        ScoreName("beta_recall", "higher"),
    )
    source: ClassVar[str] = "Alaa et al. 2022, arXiv:2102.08921, Sec. 3"

    preset: Preset = "alaa"
    """See the module."""
    seed: Whole = 0
    """Of the bootstrap."""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores over all samples and all reference examples.

        Raises:
            ValueError: fewer than 2 samples or reference examples, or features that are not finite.
        """
        samples, reference = feature_pair(evidence.features, owner="alpha-precision and beta-recall")
        assert evidence.features is not None
        found = {
            "alpha_precision": alpha_precision(samples, reference, preset=self.preset, seed=self.seed),
            "beta_recall": beta_recall(samples, reference, preset=self.preset, seed=self.seed),
        }
        protocol = {**evidence.features.protocol, "preset": self.preset, **sizes(samples, reference)}
        return tuple(
            scored(
                name,
                estimate,
                better="higher",
                num_samples=len(samples),
                num_reference=len(reference),
                protocol=protocol,
            )
            for name, estimate in found.items()
        )


def _check(samples: Tensor, reference: Tensor, *, least: int = 1) -> None:
    if len(samples) < least or len(reference) < 2:
        raise ValueError(
            f"found {len(samples)} samples and {len(reference)} real examples, expected at least {least} and 2"
        )


def _levels() -> np.ndarray:
    return np.linspace(0.0, 1.0, LEVELS)


def _weight(preset: Preset) -> float:
    return 2.0 / (LEVELS - 1) if preset == "alaa" else 1.0 / float(_levels().sum())


def _score(shares: np.ndarray, preset: Preset) -> float:
    return 1.0 - _weight(preset) * float(np.abs(_levels() - shares).sum())


def _typical(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """P_a at each level, from sorted distances to the centre."""
    radii = np.quantile(real, _levels())
    return np.asarray(np.searchsorted(drawn, radii, side="right") / len(drawn))


def _covered(hit: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """B_b at each level: real examples hit by a sample that is no deeper than the level's quantile."""
    radii = np.quantile(depth, _levels())
    return np.asarray(np.searchsorted(np.sort(depth[hit]), radii, side="right") / len(hit))


def _redrawn(ranked: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Sorted values drawn with replacement from sorted values."""
    return ranked[np.sort(generator.integers(len(ranked), size=len(ranked)))]


def _distances(points: Tensor, centre: Tensor) -> np.ndarray:
    parts = [torch.linalg.vector_norm(block.double() - centre, dim=1) for block in points.split(_BLOCK)]
    return torch.cat(parts).cpu().numpy()
