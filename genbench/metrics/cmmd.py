"""CMMD: squared mean discrepancy of unit-length CLIP embeddings under a Gaussian kernel, times 1000.

Jayasumana et al. 2024, "Rethinking FID", arXiv:2401.09603, Eq. 4 and Sec. 4 (sigma = 10, scale 1000):

    CMMD = 1000 (mean_{ij} k(x_i, x_j) + mean_{ij} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j))
    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)),  |x| = |y| = 1

The published code takes all pairs, those of a point with itself too (`v_statistic`, the default),
which adds about 1000 (1 - mean k)(1/N + 1/M); `u_statistic` leaves them out and is unbiased. Called
`cmmd` over the extractor `clip`, whose model and weights are in the protocol, else `cmmd_<extractor>`.

Departures: sums are in double precision, where the published code takes differences of single
precision means of numbers near one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Positive
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import scored
from genbench.prob.gaussian_kernel import gaussian_discrepancy, gaussian_discrepancy_biased
from genbench.prob.intervals import Estimate

SCALE = 1000.0
"""As published: the values are readable."""
SIGMA = 10.0
"""As published."""

Estimator = Literal["v_statistic", "u_statistic"]


def cmmd(
    samples: Features,
    reference: Features,
    *,
    estimator: Estimator = "v_statistic",
    sigma: float = SIGMA,
) -> Estimate:
    """1000 times the squared discrepancy of the rows scaled to unit length; `v_statistic` is >= 0.

    Formula and source: see the module.

    Args:
        samples: (N, F) embeddings, N > 1, no row zero.
        reference: (M, F), M > 1.
        estimator: with the pairs of a point with itself, as published, or without.
        sigma: width of the kernel.

    Raises:
        ValueError: a set is too small, the widths differ, or a row is zero or not finite.
    """
    x, y = (_unit_rows(part) for part in finite_features(samples=samples, reference=reference))
    if min(len(x), len(y)) < 2:
        raise ValueError(
            "CMMD needs embeddings of at least 2 samples and 2 reference examples, "
            f"found {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if estimator == "v_statistic":
        found = gaussian_discrepancy_biased(x, y, sigma=sigma)
        how = "variance of the U-statistic over samples and reference, inverted; bias of the V-statistic not removed"
    else:
        found = gaussian_discrepancy(x, y, sigma=sigma)
        how = "variance of the U-statistic over samples and reference, inverted"
    low, high = found.ci95
    return Estimate(SCALE * found.value, SCALE * found.stderr, (SCALE * low, SCALE * high), how)


@register_metric("cmmd")
@dataclass(frozen=True)
class CMMD(Metric):
    """1000 MMD^2 of unit-length embeddings; `cmmd` over CLIP, else `cmmd_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("cmmd", "lower", "1000 MMD^2"),
        ScoreName("cmmd_<extractor>", "lower", "1000 MMD^2"),
    )
    source: ClassVar[str] = "Jayasumana et al. 2024, arXiv:2401.09603, Eq. 4"

    preset: Literal["original", "none"] = "original"
    """`original`: v_statistic and sigma 10, as published; `none`: the next two settings."""
    estimator: Estimator = "v_statistic"
    sigma: Positive = SIGMA

    def __post_init__(self) -> None:
        if not self.sigma > 0.0:
            raise ValueError(f"sigma is {self.sigma}, expected a number above 0")
        if self.preset == "original" and (self.estimator, self.sigma) != ("v_statistic", SIGMA):
            raise ValueError(
                f"preset `original` fixes estimator and sigma: found {self.estimator} and {self.sigma}, "
                "expected preset `none` beside them"
            )

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with an analytic standard error over samples and reference.

        Raises:
            ValueError: fewer than 2 samples or reference examples, or embeddings that are zero or not finite.
        """
        features = evidence.features
        samples, reference = feature_pair(features, owner="CMMD")
        assert features is not None
        score = scored(
            "cmmd" if features.extractor == "clip" else f"cmmd_{features.extractor}",
            cmmd(samples, reference, estimator=self.estimator, sigma=self.sigma),
            better="lower",
            unit="1000 MMD^2",
            num_samples=len(samples),
            num_reference=len(reference),
            protocol={
                **features.protocol,
                "kernel": "exp(-|x-y|^2/(2 sigma^2))",
                "sigma": self.sigma,
                "rows": "unit length",
                "estimator": self.estimator,
                "scale": SCALE,
            },
        )
        return (score,)


def _unit_rows(features: Tensor) -> Tensor:
    rows = features.double()
    if not (rows.norm(dim=1) > 0.0).all():
        raise ValueError("CMMD needs embeddings with a direction, found a row of zeros")
    return torch.nn.functional.normalize(rows, dim=1, eps=0.0)
