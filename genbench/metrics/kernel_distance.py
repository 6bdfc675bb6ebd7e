"""Squared maximum mean discrepancy between features of samples and of real data, cubic kernel.

Called KID over Inception-v3 pool features only (Binkowski et al. 2018, arXiv:1801.01401, Sec. 4).
Unbiased for any sample count, so that a value slightly below zero is a perfect score; not scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from genbench.core.metric import Evidence, FeatureEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.prob.intervals import normal_interval
from genbench.prob.polynomial_kernel import MeanDiscrepancy, mean_discrepancy, subset_discrepancies

SUBSET_SEED = 2020
"""Seed of torch-fidelity's subsets."""


@register_metric("kernel_distance")
@dataclass(frozen=True)
class KernelDistance(Metric):
    """MMD^2 with k(x, y) = (x.y/F + 1)^3; `kid` or `kd_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("kid", "lower"), ScoreName("kd_<extractor>", "lower"))
    source: ClassVar[str] = "Binkowski et al. 2018, arXiv:1801.01401, Sec. 4"

    estimator: Literal["u_statistic", "subsets"] = "u_statistic"
    """All pairs at once, or the mean over random subsets as torch-fidelity computes it."""
    num_subsets: int = 100
    subset_size: int = 1000

    def __post_init__(self) -> None:
        if self.num_subsets < 2 or self.subset_size < 2:
            raise ValueError(
                f"num_subsets and subset_size must be at least 2, found {self.num_subsets}, {self.subset_size}"
            )

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with an analytic standard error over samples and reference.

        Raises:
            ValueError: too few samples or reference examples, or features that are not finite.
        """
        samples, reference = self._checked(evidence.features)
        features = evidence.features
        assert features is not None
        if self.estimator == "u_statistic":
            found, subsets, how = mean_discrepancy(samples, reference), {}, ""
        else:
            found, how = self._over_subsets(samples, reference), " plus spread of subset means"
            subsets = {"num_subsets": self.num_subsets, "subset_size": self.subset_size, "subset_seed": SUBSET_SEED}
        score = Score(
            name="kid" if features.extractor == "inception_v3" else f"kd_{features.extractor}",
            value=found.value,
            unit="",
            better="lower",
            stderr=found.stderr,
            ci95=normal_interval(found.value, found.stderr),
            interval=f"variance of the U-statistic over samples and reference{how}",
            num_samples=len(samples),
            num_reference=len(reference),
            protocol={**features.protocol, "kernel": "(x.y/F + 1)^3", "estimator": self.estimator, **subsets},
        )
        return (score,)

    def _checked(self, features: FeatureEvidence | None) -> tuple[np.ndarray, np.ndarray]:
        least = 2 if self.estimator == "u_statistic" else self.subset_size
        counts = (0, 0) if features is None else (len(features.samples), len(features.reference))
        if features is None or min(counts) < least:
            raise ValueError(
                f"a kernel distance ({self.estimator}) needs features of at least {least} samples and "
                f"{least} reference examples, found {counts[0]} and {counts[1]}"
            )
        samples, reference = (part.double().cpu().numpy() for part in (features.samples, features.reference))
        if not (np.isfinite(samples).all() and np.isfinite(reference).all()):
            raise ValueError("a kernel distance needs finite features, found NaN or infinity")
        return samples, reference

    def _over_subsets(self, samples: np.ndarray, reference: np.ndarray) -> MeanDiscrepancy:
        """Mean over subsets; its error is that of all pairs and that of having drawn finitely many subsets."""
        values = subset_discrepancies(
            samples, reference, num_subsets=self.num_subsets, size=self.subset_size, seed=SUBSET_SEED
        )
        drawn = float(values.var(ddof=1)) / len(values)
        whole = mean_discrepancy(samples, reference).stderr
        return MeanDiscrepancy(float(values.mean()), float(np.sqrt(whole**2 + drawn)))
