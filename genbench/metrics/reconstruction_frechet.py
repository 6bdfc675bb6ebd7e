"""Frechet distance between images and what a model makes of them after encoding: the rFID of tokenizers.

    rFD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

with mu1, S1 of features of the reconstructions and mu2, S2 of features of their own originals (Heusel et al. 2017,
arXiv:1706.08500, Eq. 6; over reconstructions as in Esser et al. 2021, arXiv:2012.09841). Called rFID over Inception-v3
pool features only. It says how much of the look of images the codes keep, whatever a prior over them does later.

Row i of one set is image i of the other, so whatever the draw of images does to one set it nearly does to the other.
The error follows the pairs: with IF1, IF2 what a row does to the distance through its own set (`prob/frechet.py`),

    SE^2 = Var(IF1(x_i) + IF2(y_i)) / N,

which for a perfect copy is 0 as the distance is, and for good ones far below that of two sets drawn apart. For the same
reason the small-sample bias is smaller than between sets drawn apart; it is not removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import named, scored
from genbench.prob.frechet import frechet_distance_to, frechet_influence
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.moments import moments_of

_OWNER = "a Frechet distance of reconstructions"


def reconstruction_frechet(reconstructions: Features, originals: Features) -> Estimate:
    """Squared Frechet distance between Gaussians fitted to paired sets, at least 0, with a 95 % interval over pairs.

    Args:
        reconstructions: features (N, F) of any float type, N at least 2.
        originals: features (N, F); row i belongs to row i of the reconstructions.

    Raises:
        ValueError: fewer than 2 pairs, unequal shapes, or something is not finite.
    """
    made, real = finite_features(reconstructions=reconstructions, originals=originals)
    if made.shape != real.shape or len(made) < 2:
        raise ValueError(
            f"{_OWNER} needs features of at least 2 reconstructions and of as many originals, "
            f"found shapes {tuple(made.shape)} and {tuple(real.shape)}"
        )
    first, second = moments_of(made), moments_of(real)
    value = frechet_distance_to(made, second.mean, second.covariance())
    influence = frechet_influence(made, second.mean, second.covariance())
    influence += frechet_influence(real, first.mean, first.covariance())
    stderr = float(influence.std(ddof=1)) / math.sqrt(len(made))
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0), "; ".join(_notes(*made.shape)))


def _notes(num: int, size: int) -> list[str]:
    notes = ["delta method over pairs of image and reconstruction", "small-sample bias not removed"]
    return notes if num > size else [*notes, f"no more images ({num}) than features ({size})"]


@register_metric("reconstruction_frechet")
@dataclass(frozen=True)
class ReconstructionFrechet(Metric):
    """Distance of the reconstructions' moments from those of their originals; `rfid` or `rfd_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.RECONSTRUCTION_FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("rfid", "lower"),
        ScoreName("rfd_<extractor>", "lower"),
    )
    source: ClassVar[str] = "Heusel et al. 2017, arXiv:1706.08500, Eq. 6; Esser et al. 2021, arXiv:2012.09841"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error over pairs.

        Raises:
            ValueError: no reconstructions, or those that the function refuses.
        """
        found = evidence.reconstruction_features
        if found is None:
            raise ValueError(
                f"{_OWNER} needs features of at least 2 reconstructions and of as many originals, found none"
            )
        estimate = reconstruction_frechet(found.reconstructions, found.originals)
        num = len(found.originals)
        score = scored(
            named(found.extractor, inception="rfid", other="rfd"),
            estimate,
            better="lower",
            num_samples=num,
            num_reference=num,
            protocol={**found.protocol, "ddof": 1, "num_images": num, "reference": "their own originals"},
        )
        return (score,)
