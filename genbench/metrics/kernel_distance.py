"""Squared maximum mean discrepancy between features of samples and of real data.

Called KID over Inception-v3 pool features with the cubic kernel only (Binkowski et al. 2018,
arXiv:1801.01401, Sec. 4). Unbiased for any sample count, so that a value slightly below zero is a
perfect score. Never scaled: papers that print it times 100 or 1000 say so.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)
    cubic: k(x, y) = (x.y / F + 1)^3        rbf: k(x, y) = exp(-|x - y|^2 / (2 sigma^2))

The default is over all pairs, which no subset improves on. Presets reproduce what codes draw:

    torch-fidelity  100 subsets of 1000, RandomState(2020), generated drawn first
    mmd-gan         50 subsets of 1000, generated first
    clean-fid       100 of min(1000, N, M), generated first (its second argument)
    stylegan3       100 of min(1000, N, M), generated first
    dgm-eval        100 of min(1000, N, M), real first
    fld             100 of min(1000, N // 2, M // 2), RandomState(42), generated first

The four without a seed draw from NumPy's global stream; here they are as after `np.random.seed(2020)`.
The spread of subset values that those codes print beside the mean is not its standard error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Positive, Several
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import INCEPTION, scored
from genbench.prob.discrepancy import SubsetDiscrepancies, draw_subsets
from genbench.prob.gaussian_kernel import gaussian_discrepancy, gaussian_subset_mean
from genbench.prob.intervals import Estimate
from genbench.prob.polynomial_kernel import mean_discrepancy, subset_mean

KernelName = Literal["cubic", "rbf"]
Preset = Literal["none", "torch-fidelity", "mmd-gan", "clean-fid", "stylegan3", "dgm-eval", "fld"]

SUBSET_SEED = 2020
"""Seed of torch-fidelity's subsets, and of those that come without one."""
SIGMA = 10.0
"""Width of torch-fidelity's Gaussian kernel."""
HOW = "variance of the U-statistic over samples and reference, inverted"


@dataclass(frozen=True)
class SubsetRule:
    """How a code draws its subsets."""

    num_subsets: Several = 100
    size: int = 1000
    seed: int = SUBSET_SEED
    shrinks: bool = False
    """Whether a subset may be as small as the smaller set; else too few examples are an error."""
    part: int = 1
    """A subset holds at most this fraction of a set: 2 for a half."""
    real_first: bool = False

    @property
    def least(self) -> int:
        """Examples that each set must have."""
        return 2 * self.part if self.shrinks else self.size

    def size_for(self, n: int, m: int) -> int:
        """Examples in a subset of sets of n and m."""
        return min(self.size, n // self.part, m // self.part) if self.shrinks else self.size


RULES: dict[Preset, SubsetRule] = {
    "torch-fidelity": SubsetRule(),
    "mmd-gan": SubsetRule(num_subsets=50),
    "clean-fid": SubsetRule(shrinks=True),
    "stylegan3": SubsetRule(shrinks=True),
    "dgm-eval": SubsetRule(shrinks=True, real_first=True),
    "fld": SubsetRule(shrinks=True, part=2, seed=42),
}


def kernel_distance(
    samples: Features,
    reference: Features,
    *,
    kernel: KernelName = "cubic",
    sigma: float = SIGMA,
) -> Estimate:
    """Unbiased squared discrepancy over all pairs; may be slightly negative.

    Formula and sources: see the module. The standard error counts both orders of the variance.
    Features in single precision are multiplied in single precision and summed in double.

    Args:
        samples: (N, F) finite features, N > 1.
        reference: (M, F), M > 1.
        kernel: `cubic` or `rbf`.
        sigma: width of `rbf`.

    Raises:
        ValueError: a set is too small, the widths differ, or features are not finite.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    _check_counts(samples, reference, least=2)
    if kernel == "cubic":
        found = mean_discrepancy(samples, reference)
    else:
        found = gaussian_discrepancy(samples, reference, sigma=sigma)
    return Estimate(found.value, found.stderr, found.ci95, HOW)


def kernel_distance_of_subsets(
    samples: Features,
    reference: Features,
    *,
    rule: SubsetRule,
    kernel: KernelName = "cubic",
    sigma: float = SIGMA,
) -> SubsetDiscrepancies:
    """Unbiased squared discrepancy of random subsets, their mean and its standard error.

    Args:
        samples: (N, F) finite features, at least `rule.least`.
        reference: (M, F), likewise.
        rule: how to draw; those of other codes are in `RULES`.
        kernel: `cubic` or `rbf`.
        sigma: width of `rbf`.

    Raises:
        ValueError: a set is too small, the widths differ, or features are not finite.
    """
    samples, reference = finite_features(samples=samples, reference=reference)
    _check_counts(samples, reference, least=rule.least)
    n, m = len(samples), len(reference)
    draws = draw_subsets(
        n,
        m,
        num_subsets=rule.num_subsets,
        size=rule.size_for(n, m),
        random=np.random.RandomState(rule.seed),
        y_first=rule.real_first,
    )
    if kernel == "cubic":
        return subset_mean(samples, reference, draws)
    return gaussian_subset_mean(samples, reference, draws, sigma=sigma)


@register_metric("kernel_distance")
@dataclass(frozen=True)
class KernelDistance(Metric):
    """MMD^2 with a cubic kernel, `kid` or `kd_<extractor>`, or with a Gaussian one, `kd_rbf_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("kid", "lower", "MMD^2"),
        ScoreName("kd_<extractor>", "lower", "MMD^2"),
        ScoreName("kd_rbf_<extractor>", "lower", "MMD^2"),
    )
    source: ClassVar[str] = "Binkowski et al. 2018, arXiv:1801.01401, Sec. 4"

    preset: Preset = "none"
    """Draw subsets as a named code does, see the module; `none`: as the next three settings say."""
    estimator: Literal["u_statistic", "subsets"] = "u_statistic"
    """All pairs at once, or the mean over random subsets drawn as torch-fidelity draws them."""
    num_subsets: Several = 100
    subset_size: Several = 1000
    kernel: KernelName = "cubic"
    sigma: Positive = SIGMA
    """Width of `rbf`."""

    def __post_init__(self) -> None:
        if self.num_subsets < 2 or self.subset_size < 2:
            raise ValueError(
                f"num_subsets and subset_size must be at least 2, found {self.num_subsets}, {self.subset_size}"
            )
        if not self.sigma > 0.0:
            raise ValueError(f"sigma is {self.sigma}, expected a number above 0")
        if self.preset != "none" and (self.estimator, self.num_subsets, self.subset_size) != ("u_statistic", 100, 1000):
            raise ValueError(
                f"preset `{self.preset}` fixes the subsets: found estimator, num_subsets or subset_size beside it, "
                "expected none of them"
            )

    @property
    def rule(self) -> SubsetRule | None:
        """How subsets are drawn, None where all pairs are taken."""
        if self.preset != "none":
            return RULES[self.preset]
        if self.estimator == "subsets":
            return SubsetRule(num_subsets=self.num_subsets, size=self.subset_size)
        return None

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with an analytic standard error over samples and reference.

        Raises:
            ValueError: too few samples or reference examples, or features that are not finite.
        """
        rule, features = self.rule, evidence.features
        least = 2 if rule is None else rule.least
        way = self.preset if self.preset != "none" else self.estimator
        samples, reference = feature_pair(features, owner=f"a kernel distance ({way})", samples=least, reference=least)
        assert features is not None
        protocol: dict[str, Scalar] = {**features.protocol, **self._kernel_protocol(), "scale": 1}
        if rule is None:
            found = kernel_distance(samples, reference, kernel=self.kernel, sigma=self.sigma)
            protocol["estimator"] = "u_statistic"
        else:
            drawn = kernel_distance_of_subsets(samples, reference, rule=rule, kernel=self.kernel, sigma=self.sigma).mean
            found = Estimate(drawn.value, drawn.stderr, drawn.ci95, f"{HOW} plus spread of subset means")
            protocol |= self._subset_protocol(rule, len(samples), len(reference))
        score = scored(
            self._name(features.extractor),
            found,
            better="lower",
            unit="MMD^2",
            num_samples=len(samples),
            num_reference=len(reference),
            protocol=protocol,
        )
        return (score,)

    def _name(self, extractor: str) -> str:
        if self.kernel == "rbf":
            return f"kd_rbf_{extractor}"
        return "kid" if extractor == INCEPTION else f"kd_{extractor}"

    def _kernel_protocol(self) -> dict[str, Scalar]:
        if self.kernel == "cubic":
            return {"kernel": "(x.y/F + 1)^3"}
        return {"kernel": "exp(-|x-y|^2/(2 sigma^2))", "sigma": self.sigma}

    def _subset_protocol(self, rule: SubsetRule, n: int, m: int) -> dict[str, Scalar]:
        return {
            "estimator": "subsets",
            "num_subsets": rule.num_subsets,
            "subset_size": rule.size_for(n, m),
            "subset_seed": rule.seed,
            "drawn_first": "reference" if rule.real_first else "samples",
        }


def _check_counts(samples: Tensor, reference: Tensor, *, least: int) -> None:
    if min(len(samples), len(reference)) < least:
        raise ValueError(
            f"a kernel distance needs features of at least {least} samples and {least} reference examples, "
            f"found {len(samples)} and {len(reference)}"
        )
