"""Realism: how deep within the real examples' balls a sample lies, median over the samples.

    R(x) = max over real examples r of  radius(r) / |x - r|

(Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 3), where the radius reaches to the k-th nearest
other real example. R is at least 1 for samples within a ball.

    preset `paper`    only balls with a radius below the median take part (Sec. 5; also dgm-eval's code)
    preset `kynkaat`  all balls, and squares: max radius^2 / (|x - r|^2 + 1e-5), as in the authors' code

The score is the *median* over samples: under `paper` a sample equal to a real example has infinite
realism, so a mean need not exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Count
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate
from genbench.prob.neighbours import nearest_neighbours, squared_radii
from genbench.prob.order_statistics import median_estimate

Preset = Literal["paper", "kynkaat"]
HOW = "order statistics of the median over samples; reference held fixed"
_TINY = 1e-5
"""Added to squared distances under `kynkaat`."""


def realism_of_samples(samples: Features, reference: Features, *, k: int = 3, preset: Preset = "paper") -> Tensor:
    """Realism of each sample: (N,) float64, at least 0, infinite where a sample equals a real example.

    Args:
        samples: (N, F) finite features.
        reference: (M, F), M > k.
        k: neighbours within a ball, its centre not counted.
        preset: see the module.

    Raises:
        ValueError: k is below 1, the reference has not more than k examples, or features are not finite or of unequal
            widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    if k < 1 or len(reference) <= k:
        raise ValueError(f"k is {k}, expected at least 1 and less than {len(reference)} real examples")
    radii = squared_radii(reference, k)
    kept = radii > 0
    if preset == "paper":
        kept &= radii.sqrt() < radii.sqrt().quantile(0.5)
    if not bool(kept.any()):
        return torch.zeros(len(samples), dtype=torch.float64, device=samples.device)
    reference, radii = reference[kept], radii[kept]
    if preset == "kynkaat":
        return _with_offset(samples, reference, radii)
    nearest = nearest_neighbours(samples, reference, scale=1.0 / radii)
    return nearest.squared[:, 0].rsqrt()


def realism(samples: Features, reference: Features, *, k: int = 3, preset: Preset = "paper") -> Estimate:
    """Median realism of the samples, at least 0; higher is better.

    Formula and source: see the module. Arguments as in `realism_of_samples`.

    Raises:
        ValueError: as there, or half of the samples equal real examples, so that the median is infinite.
    """
    values = realism_of_samples(samples, reference, k=k, preset=preset)
    estimate = median_estimate(values.cpu().numpy(), how=HOW)
    if not math.isfinite(estimate.value) or estimate.ci95 is None or not math.isfinite(estimate.ci95[1]):
        share = float(values.isinf().double().mean())
        raise ValueError(
            f"realism needs samples that differ from real examples, found {share:.1%} of them equal to one"
        )
    return estimate


def _with_offset(samples: Tensor, reference: Tensor, radii: Tensor) -> Tensor:
    """Max of r^2 / (d^2 + tiny): the offset is one more dimension in which all reference points lie apart."""
    apart = torch.full((len(reference), 1), _TINY**0.5, dtype=torch.float64, device=reference.device)
    lifted = torch.cat([reference.double(), apart], dim=1)
    flat = torch.cat([samples.double(), torch.zeros_like(apart[:1]).expand(len(samples), 1)], dim=1)
    return 1.0 / nearest_neighbours(flat, lifted, scale=1.0 / radii).squared[:, 0]


@register_metric("realism")
@dataclass(frozen=True)
class Realism(Metric):
    """How deep within the real examples' balls the median sample lies; from 1 on it is inside one."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("realism", "higher"),)
    source: ClassVar[str] = "Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 3 and Sec. 5"

    preset: Preset = "paper"
    """See the module."""
    k: Count = 3
    """Neighbours within a ball, its centre not counted."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, expected at least 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with an interval of order statistics.

        Raises:
            ValueError: no sample, not more than k reference examples, features that are not finite, or
                samples half of which equal real examples.
        """
        samples, reference = feature_pair(evidence.features, owner="realism", samples=1, reference=self.k + 1)
        assert evidence.features is not None
        protocol = {**evidence.features.protocol, "k": self.k, "preset": self.preset, "num_reference": len(reference)}
        estimate = realism(samples, reference, k=self.k, preset=self.preset)
        return (
            scored(
                "realism",
                estimate,
                better="higher",
                num_samples=len(samples),
                num_reference=len(reference),
                protocol=protocol,
            ),
        )
