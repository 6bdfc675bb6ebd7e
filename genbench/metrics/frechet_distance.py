"""Frechet distance between Gaussians fitted to features of samples and of real data.

    FD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

Called FID over Inception-v3 pool features only (Heusel et al. 2017, arXiv:1706.08500, Eq. 6). The
value is biased upwards for few samples; it is comparable only between equal sample counts, which
therefore belong to the protocol, or after a correction of the bias, which has a name of its own.

Presets fix the covariance's denominator: N - 1 in every code but `stylegan3`'s, N there. What else
the codes differ in, the resize and the network, are settings of the extractor.

    default, torch-fidelity, pytorch-fid, clean-fid    ddof 1
    stylegan3                                          ddof 0
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

Preset = Literal["default", "torch-fidelity", "pytorch-fid", "clean-fid", "stylegan3"]


def frechet_distance(samples: Side, reference: Side, *, ddof: int = 1, bias: BiasForm = "kept") -> Estimate:
    """Squared Frechet distance between Gaussians fitted to two sets, at least 0, with a 95 % interval.

        FD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

    (Heusel et al. 2017, arXiv:1706.08500, Eq. 6.) The interval is that of the delta method over the
    draw of the samples, the reference held fixed; there is none where the samples are moments only.

    Args:
        samples: features (N, F) of any float type, N > 1, or moments of them.
        reference: features (M, F), M > 1, or moments of them.
        ddof: N - ddof stands in the denominator of both covariances: 1 nearly everywhere, 0 in StyleGAN's code.
        bias: `kept`, or removed to order 1/N: `gaussian` in closed form for Gaussian features,
            `fourth_moment` with the fourth moments of the features given. A distance without bias
            may come out negative.

    Raises:
        ValueError: a side has fewer than 2 examples or another number of features, something is not
            finite, or the correction needs what is not there.
    """
    return frechet_estimate(samples, reference, ddof=ddof, bias=bias)


@register_metric("frechet_distance")
@dataclass(frozen=True)
class FrechetDistance(Metric):
    """Distance of the samples' moments from the reference's; `fid` or `fd_<extractor>`, `_corrected` without bias."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.MOMENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("fid", "lower"),
        ScoreName("fd_<extractor>", "lower"),
        ScoreName("fid_corrected", "lower"),
        ScoreName("fd_<extractor>_corrected", "lower"),
    )
    source: ClassVar[str] = "Heusel et al. 2017, arXiv:1706.08500, Eq. 6"

    ddof: Literal[0, 1] = 1
    """N - ddof stands in the denominator of the covariances: 1 nearly everywhere, 0 in StyleGAN's code."""
    bias: Literal["kept", "gaussian", "fourth_moment"] = "kept"
    """Small-sample bias: kept as in the literature, or removed in closed form or by fourth moments."""
    preset: Preset = "default"
    """Whose convention; `stylegan3` sets ddof to 0."""

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof is {self.ddof}, expected 0 or 1")
        if self.ddof == 0 and self.preset not in ("default", "stylegan3"):
            raise ValueError(f"ddof is 0, expected 1 as in preset `{self.preset}`")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error where features of the samples are known.

        Raises:
            ValueError: fewer than 2 samples, or features that are not finite.
        """
        features = evidence.features
        name = named(features.extractor if features else "", inception="fid", other="fd")
        return (frechet_score(features, name, ddof=0 if self.preset == "stylegan3" else self.ddof, bias=self.bias),)
