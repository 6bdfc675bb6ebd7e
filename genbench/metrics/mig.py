"""Mutual information gap of latents with labelled factors.

    MIG = mean_k (I(z_a; v_k) - I(z_b; v_k)) / H(v_k)

with `z_a` and `z_b` the two latents that tell most about factor `v_k` (Chen et al. 2018, arXiv:1802.04942, Sec. 4.1).
The estimator is the one that nearly all papers report, of Locatello et al. 2019 (arXiv:1811.12359): codes
are means of the posterior, cut into 20 bins of equal width, and the mutual information is that of the contingency
table. Chen et al. integrate over the posterior, which gives other numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Several
from genbench.core.record import Score
from genbench.metrics._latents import Array, checked_latents, found_latents, latent_protocol, top_two
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.mutual_information import histogram_bins, mutual_information

_OWNER = "the mutual information gap"


def mig(codes: Array, factors: Array, *, num_bins: int = 20) -> Estimate:
    """Mean over factors of the gap between the two most informative latents, over the factor's entropy: 0 .. 1.

    Args:
        codes: (N, D) float, D at least 2; bins are cut in their own precision.
        factors: (N, K) int, each with at least two values.
        num_bins: of equal width between the extremes of each latent.

    Returns:
        The estimate; its error is the delete-one jackknife over examples, with bins and the choice of the two latents
        held fixed. The upward bias of each mutual information, about (B-1)(V-1)/2N, is not removed.

    Raises:
        ValueError: fewer than 2 latents or examples, codes that are not finite, or a constant factor.
    """
    z, values = checked_latents(codes, factors, owner=_OWNER, latents=2)
    found = mutual_information(histogram_bins(z, num_bins), values)
    first, second = top_two(found.values)
    each = np.arange(values.shape[1])
    entropy = found.entropies
    gaps = (found.values[first, each] - found.values[second, each]) / entropy
    weights = np.zeros_like(found.values)
    weights[first, each] = 1.0 / (len(each) * entropy)
    weights[second, each] = -1.0 / (len(each) * entropy)
    pulls = found.pull(weights, -gaps / (len(each) * entropy))
    value, stderr = float(gaps.mean()), float(pulls.std(ddof=1)) / math.sqrt(len(z))
    how = "delete-one jackknife over examples; bins held fixed"
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0, high=1.0), how)


@register_metric("mig")
@dataclass(frozen=True)
class MIG(Metric):
    """Gap in mutual information between the two best latents for each factor; 1 where one latent tells each factor."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LATENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("mig", "higher"),)
    source: ClassVar[str] = "Chen et al. 2018, arXiv:1802.04942, Sec. 4.1; Locatello et al. 2019, arXiv:1811.12359"

    num_bins: Several = 20
    """Of equal width, for each latent; 20 in Locatello et al. 2019."""

    def __post_init__(self) -> None:
        if self.num_bins < 2:
            raise ValueError(f"num_bins is {self.num_bins}, expected at least 2")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: as the function says.
        """
        found = found_latents(evidence.latents, owner=_OWNER)
        estimate = mig(found.codes, found.factors, num_bins=self.num_bins)
        protocol = {**latent_protocol(found), "estimator": "plug-in on a histogram", "num_bins": self.num_bins}
        return (scored("mig", estimate, better="higher", num_samples=len(found.codes), protocol=protocol),)
