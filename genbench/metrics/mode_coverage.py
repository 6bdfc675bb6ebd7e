"""Share of the ground-truth factor combinations that the samples show.

A reader trained on the factors of the data reads each sample; one that it reads with confidence
counts as recognised. Mode coverage is the share of the training split's combinations among the
recognised samples. It grows with the sample count: N draws of M equally likely combinations show
1 - (1 - 1/M)^N of them, which is what a perfect model scores. (After the mode counts on stacked
digits of Metz et al. 2017, arXiv:1611.02163, Sec. 3.3.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genbench.core.metric import Evidence, FactorEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Share
from genbench.core.record import Score
from genbench.prob.intervals import normal_interval, share_interval

NUM_DRAWS = 400
BOOTSTRAP_SEED = 0


@register_metric("mode_coverage")
@dataclass(frozen=True)
class ModeCoverage(Metric):
    """Combinations covered, and the share of samples that can be read at all."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FACTORS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("mode_coverage", "higher"), ScoreName("recognised", "higher"))
    source: ClassVar[str] = "after Metz et al. 2017, arXiv:1611.02163, Sec. 3.3"

    min_confidence: Share = 0.5
    """Least probability of every factor's value for a sample to count.

    0.5 means that each value is likelier than all others together. `shapes_net` reads at least 998 of 1,000 held-out
    pictures of 8 pixels with that confidence, all of 16 and more, and no picture of noise nor the mean image."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_confidence <= 1.0:
            raise ValueError(f"min_confidence is {self.min_confidence}, expected 0 .. 1")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores, with intervals over samples.

        Raises:
            ValueError: no sample, no combination, or confidences that are not finite.
        """
        factors = _checked(evidence.factors)
        confident = (factors.samples.confidence >= self.min_confidence).cpu().numpy()
        counts = _counts(factors, confident)
        coverage = float((counts > 0).mean())
        spread = _spread(counts, len(confident))
        recognised = float(confident.mean())
        error = math.sqrt(recognised * (1.0 - recognised) / len(confident))
        how = f"bootstrap over samples, smoothed by Good and Turing, {NUM_DRAWS} draws"
        covered = normal_interval(coverage, spread, low=0.0, high=1.0)
        return (
            self._score("mode_coverage", factors, coverage, spread, covered, how),
            self._score(
                "recognised",
                factors,
                recognised,
                error,
                share_interval(recognised, len(confident)),
                "Wilson over samples",
            ),
        )

    def _score(
        self,
        name: str,
        factors: FactorEvidence,
        value: float,
        stderr: float,
        ci95: tuple[float, float],
        interval: str,
    ) -> Score:
        count = len(factors.samples.values)
        return Score(
            name=name,
            value=value,
            unit="",
            better="higher",
            stderr=stderr,
            ci95=ci95,
            interval=interval,
            num_samples=count,
            num_reference=len(factors.training),
            protocol={
                "min_confidence": self.min_confidence,
                "num_combinations": len(factors.training),
                "num_samples": count,
                "factors": ",".join(factor.name for factor in factors.samples.factors),
            },
        )


def _checked(factors: FactorEvidence | None) -> FactorEvidence:
    if factors is None or len(factors.samples.values) == 0 or len(factors.training) == 0:
        raise ValueError("mode coverage needs factors of at least 1 sample and 1 training combination, found none")
    if factors.samples.values.shape[1] != factors.training.shape[1]:
        raise ValueError(
            f"samples are read for {factors.samples.values.shape[1]} factors, "
            f"training combinations have {factors.training.shape[1]}"
        )
    if not factors.samples.confidence.isfinite().all():
        raise ValueError("mode coverage needs finite confidences, found NaN or infinity")
    return factors


def _counts(factors: FactorEvidence, confident: np.ndarray) -> np.ndarray:
    """Recognised samples of each training combination: (M,) int64."""
    sizes = [len(factor.values) for factor in factors.samples.factors]
    read = np.ravel_multi_index(tuple(factors.samples.values.cpu().numpy()[confident].T), sizes)
    wanted = np.ravel_multi_index(tuple(factors.training.cpu().numpy().T), sizes)
    return np.asarray(np.bincount(read, minlength=math.prod(sizes))[wanted])


def _spread(counts: np.ndarray, num_samples: int) -> float:
    """Standard error of the share of combinations seen.

    A plain bootstrap never draws what was not seen and comes out too small. The mass of combinations
    seen once estimates that of the unseen (Good 1953), which share it equally.
    """
    once, unseen = int((counts == 1).sum()), int((counts == 0).sum())
    missing = once / num_samples if unseen else 0.0
    mass = counts / num_samples * (1.0 - missing)
    mass[counts == 0] = missing / max(unseen, 1)
    random = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = random.multinomial(num_samples, [*mass, max(0.0, 1.0 - mass.sum())], size=NUM_DRAWS)
    return float((drawn[:, :-1] > 0).mean(axis=1).std(ddof=1))
