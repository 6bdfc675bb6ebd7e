"""Precision, recall, density and coverage from nearest-neighbour balls in feature space.

A ball reaches from a point to the k-th nearest other point of its own set.

    precision = share of samples within a ball around some real example
    recall    = share of real examples within a ball around some sample
    density   = balls around real examples that a sample is inside of, mean over samples, over k
    coverage  = share of the balls around real examples that have a sample inside

(Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 1 and 2; Naeem et al. 2020, arXiv:2002.09797, Eq. 3
and 4.) All four come from one pass. Presets fix what codes differ in: k, and whether a point on the
edge of a ball is in it for precision and recall (for density and coverage it never is).

    kynkaanniemi    k 3, edge included: the first paper, and most after it (the default)
    torch-fidelity  the same; gives the F score of both shares too
    stylegan3       the same
    adm             the same, against the first 10 000 real examples
    fld             k 3, edge excluded
    prdc            k 5, edge excluded: the second paper's code, and dgm-eval

Departure: `stylegan3` and `adm` measure distances in float16; here they are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Count
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import scored
from genbench.prob.balls import mutual_balls
from genbench.prob.intervals import Estimate, normal_interval, share_interval

Preset = Literal["kynkaanniemi", "torch-fidelity", "stylegan3", "adm", "fld", "prdc"]
Edge = Literal["included", "excluded"]
HOW = "over both sets: binomial over points, half the delete-one jackknife over balls; radii held fixed"
HOW_DENSITY = "over both sets: spread over points and over balls; radii held fixed"
HOW_F = "delta method from precision and recall, taken as independent"
ADM_REFERENCE = 10_000
"""Real examples in the reference files of guided diffusion; the evaluator looks at no others."""
_LEAST_SUM = 1e-5
"""Least denominator of the F score, as in torch-fidelity."""


def precision_recall(
    samples: Features, reference: Features, *, k: int = 3, edge: Edge = "included"
) -> dict[str, Estimate]:
    """Precision, recall and coverage (0 .. 1) and density (at least 0, may exceed 1), by name.

    Formulas and sources: see the module. Comparisons are exact for features that are exact.

    Args:
        samples: (N, F) finite features, N > k.
        reference: (M, F), M > k.
        k: neighbours within a ball, its centre not counted; at least 1.
        edge: whether a point on the edge of a ball is in it, for precision and recall.

    Raises:
        ValueError: k is below 1, a set has not more than k points, or features are not finite or of unequal widths.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    if k < 1 or min(len(samples), len(reference)) <= k:
        raise ValueError(f"k is {k}, expected at least 1 and less than {len(samples)} and {len(reference)} points")
    real, drawn = mutual_balls(samples, reference, k=k)
    if edge == "included":
        precision = _share(real.within > 0, real.sole_holder)
        recall = _share(drawn.within > 0, drawn.sole_holder)
    else:
        precision = _share(real.inside > 0, real.sole_holder_inside)
        recall = _share(drawn.inside > 0, drawn.sole_holder_inside)
    return {
        "precision": precision,
        "recall": recall,
        "density": _density(real.inside, real.occupants, k),
        "coverage": _share(real.occupants > 0, real.sole_occupant),
    }


def f_score(precision: Estimate, recall: Estimate) -> Estimate:
    """`2 p r / max(1e-5, p + r)`, 0 .. 1, as torch-fidelity defines it."""
    p, r = precision.value, recall.value
    total = max(_LEAST_SUM, p + r)
    value = 2.0 * p * r / total
    slopes = (2.0 * (r / total) ** 2, 2.0 * (p / total) ** 2)
    stderr = ((slopes[0] * (precision.stderr or 0.0)) ** 2 + (slopes[1] * (recall.stderr or 0.0)) ** 2) ** 0.5
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0, high=1.0), HOW_F)


@register_metric("precision_recall")
@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """Four shares of balls and points: fidelity (precision, density) and variety (recall, coverage)."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("precision", "higher"),
        ScoreName("recall", "higher"),
        ScoreName("density", "higher"),
        ScoreName("coverage", "higher"),
        ScoreName("f_score", "higher"),
    )
    source: ClassVar[str] = "Kynkaanniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797"

    preset: Preset = "kynkaanniemi"
    """Whose k and edge; see the module. `f_score` is given with `torch-fidelity` alone."""
    k: Count | None = None
    """Neighbours within a ball, its centre not counted; None: the preset's."""

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k is {self.k}, expected at least 1")

    @property
    def neighbours(self) -> int:
        """The k in force."""
        return self.k if self.k is not None else 5 if self.preset == "prdc" else 3

    @property
    def edge(self) -> Edge:
        """Whether a point on the edge of a ball is in it, for precision and recall."""
        return "excluded" if self.preset in ("prdc", "fld") else "included"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Four scores over all samples and all reference examples, whose counts may differ; five with F.

        Raises:
            ValueError: not more than k samples or reference examples, or features that are not finite.
        """
        k = self.neighbours
        owner = f"precision and recall with balls of {k} neighbours"
        samples, reference = feature_pair(evidence.features, owner=owner, samples=k + 1, reference=k + 1)
        if self.preset == "adm":
            reference = reference[:ADM_REFERENCE]
        found = precision_recall(samples, reference, k=k, edge=self.edge)
        if self.preset == "torch-fidelity":
            found["f_score"] = f_score(found["precision"], found["recall"])
        assert evidence.features is not None
        counts = {"num_samples": len(samples), "num_reference": len(reference)}
        protocol = {**evidence.features.protocol, "k": k, "edge": self.edge, **counts}
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


def _share(hit: Tensor, sole: Tensor) -> Estimate:
    """Share of hits, its standard error and interval.

    Points are drawn at random, and so are the balls they lie in. Dropping ball b loses the `sole`
    points that only b holds; the jackknife over these losses counts every pair of interchangeable
    balls twice (Efron and Stein 1981), so half of it is added.

    Args:
        hit: (N,) bool, one for each point.
        sole: (M,) int64, hits that would be lost with each ball.
    """
    share = float(hit.double().mean())
    binomial = share * (1.0 - share) / len(hit)
    losses = sole.double() / len(hit)
    variance = binomial + 0.5 * (len(losses) - 1) * float(losses.var(correction=0))
    effective = share * (1.0 - share) / variance if binomial > 0 else float(len(hit))
    return Estimate(share, variance**0.5, share_interval(share, effective), HOW)


def _density(inside: Tensor, occupants: Tensor, k: int) -> Estimate:
    """Mean number of real balls around a sample over k, its standard error and interval."""
    per_point = inside.double() / k
    per_ball = occupants.double() * (len(occupants) / (k * len(inside)))
    value = float(per_point.mean())
    variance = float(torch.var(per_point)) / len(inside) + float(torch.var(per_ball)) / len(occupants)
    return Estimate(value, variance**0.5, normal_interval(value, variance**0.5, low=0.0), HOW_DENSITY)
