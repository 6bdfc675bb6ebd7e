"""Frechet distance over the spatial features of an extractor, which keep where things are.

    sFD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

over the flattened map of an early layer. Called sFID over Inception-v3, where that is the first 7
channels of the last block of 17 x 17 maps, 2023 numbers (Nash et al. 2021, arXiv:2103.03841, Sec. 5;
ADM's evaluator). What is said of the bias of `frechet_distance` holds here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._frechet import Side, frechet_estimate, frechet_score
from genbench.metrics._scores import named
from genbench.prob.frechet import BiasForm
from genbench.prob.intervals import Estimate


def spatial_frechet_distance(samples: Side, reference: Side, *, ddof: int = 1, bias: BiasForm = "kept") -> Estimate:
    """Squared Frechet distance between Gaussians fitted to flattened maps, at least 0, with a 95 % interval.

        sFD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

    (Nash et al. 2021, arXiv:2103.03841, Sec. 5.)

    Args:
        samples: flattened maps (N, F) of any float type, N > 1, or moments of them.
        reference: flattened maps (M, F), M > 1, or moments of them.
        ddof: N - ddof stands in the denominator of both covariances.
        bias: as of `frechet_distance`.

    Raises:
        ValueError: as `frechet_distance`.
    """
    return frechet_estimate(samples, reference, ddof=ddof, bias=bias)


@register_metric("spatial_frechet_distance")
@dataclass(frozen=True)
class SpatialFrechetDistance(Metric):
    """Distance of the moments of spatial features; `sfid` or `sfd_<extractor>`, `_corrected` without bias."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.SPATIAL})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("sfid", "lower"),
        ScoreName("sfd_<extractor>", "lower"),
        ScoreName("sfid_corrected", "lower"),
        ScoreName("sfd_<extractor>_corrected", "lower"),
    )
    source: ClassVar[str] = "Nash et al. 2021, arXiv:2103.03841, Sec. 5"

    ddof: Literal[0, 1] = 1
    """N - ddof stands in the denominator of the covariances."""
    bias: Literal["kept", "gaussian", "fourth_moment"] = "kept"
    """Small-sample bias: kept as in the literature, or removed in closed form or by fourth moments."""

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof is {self.ddof}, expected 0 or 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error where features of the samples are known.

        Raises:
            ValueError: fewer than 2 samples, or features that are not finite.
        """
        spatial = evidence.spatial
        name = named(spatial.extractor if spatial else "", inception="sfid", other="sfd")
        owner = "a spatial Frechet distance"
        return (frechet_score(spatial, name, ddof=self.ddof, bias=self.bias, owner=owner),)
