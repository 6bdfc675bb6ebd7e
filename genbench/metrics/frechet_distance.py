"""Frechet distance between Gaussians fitted to features of samples and of real data.

Called FID over Inception-v3 pool features only (Heusel et al. 2017, arXiv:1706.08500, Eq. 6). The
value is biased upwards for few samples; it is comparable only between equal sample counts, which
therefore belong to the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genbench.core.metric import Evidence, FeatureEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.prob.frechet import frechet_distance_to, frechet_standard_error
from genbench.prob.intervals import normal_interval


@register_metric("frechet_distance")
@dataclass(frozen=True)
class FrechetDistance(Metric):
    """Distance of the samples' moments from the reference statistics; `fid` or `fd_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("fid", "lower"), ScoreName("fd_<extractor>", "lower"))
    source: ClassVar[str] = "Heusel et al. 2017, arXiv:1706.08500, Eq. 6"

    ddof: int = 1
    """N - ddof stands in the denominator of the samples' covariance: 1 nearly everywhere, 0 in StyleGAN's code."""

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof is {self.ddof}, expected 0 or 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error.

        Raises:
            ValueError: fewer than 2 samples, or features that are not finite.
        """
        features = evidence.features
        if features is None or len(features.samples) < 2:
            raise ValueError(f"a Frechet distance needs features of at least 2 samples, found {_count(features)}")
        samples = features.samples.double().cpu().numpy()
        moments = self._reference(features)
        value = frechet_distance_to(samples, *moments, ddof=self.ddof)
        stderr = frechet_standard_error(samples, *moments)
        score = Score(
            name="fid" if features.extractor == "inception_v3" else f"fd_{features.extractor}",
            value=value,
            unit="",
            better="lower",
            stderr=stderr,
            ci95=normal_interval(value, stderr, low=0.0),
            interval="delta method over samples; reference held fixed, small-sample bias not removed",
            num_samples=len(samples),
            num_reference=features.statistics.num_samples,
            protocol=self._protocol(features),
        )
        return (score,)

    def _reference(self, features: FeatureEvidence) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the reference, the latter with this metric's denominator."""
        count = features.statistics.num_samples
        return features.statistics.mean, features.statistics.covariance * ((count - 1) / (count - self.ddof))

    def _protocol(self, features: FeatureEvidence) -> dict[str, bool | int | float | str]:
        return {
            **features.protocol,
            "ddof": self.ddof,
            "num_samples": len(features.samples),
            "num_reference": features.statistics.num_samples,
            "reference_sha256": features.statistics.sha256,
        }


def _count(features: FeatureEvidence | None) -> int:
    return 0 if features is None else len(features.samples)
