"""Frechet distance extrapolated to infinitely many samples.

The distance of n samples is FD_n = FD_infinity + c/n + o(1/n): an ordinary least-squares line through
FD_n over 1/n, for subsets of growing size n, meets 1/n = 0 at FD_infinity (Chong and Forsyth 2020,
arXiv:1911.07023, Sec. 3.2 and 5). Each subset is drawn afresh; the reference keeps its moments, so that the
bias of the samples alone is removed. The reference is decomposed once for all subsets.

    chong-forsyth    15 sizes from 5000 to N; N must exceed 5000 (the default)
    dgm-eval         15 sizes from N/10, at least 2 and at most 5000, to N

`frechet_distance[bias=gaussian]` corrects both sides with one decomposition and no drawing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from genbench.core.features import Statistics
from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Several, Whole
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_rows
from genbench.metrics._frechet import Side, counted, fitted, sides
from genbench.metrics._scores import named, scored
from genbench.prob.frechet import frechet, frechet_distances_to
from genbench.prob.intervals import Estimate, normal_interval

HOW = "standard error of the line's intercept and delta method over samples, in quadrature; reference held fixed"


def frechet_infinity(
    samples: Features, reference: Side, *, min_samples: int = 5000, num_points: int = 15, seed: int = 0
) -> Estimate:
    """Squared Frechet distance at infinitely many samples, with a 95 % interval; may come out negative.

    FD_n is fitted by FD_infinity + c/n (Chong and Forsyth 2020, arXiv:1911.07023, Sec. 3.2).

    Args:
        samples: features (N, F) of any float type, N > `min_samples`.
        reference: features (M, F), or moments of them.
        min_samples: least size of a subset, at least 2.
        num_points: subsets, at least 3; their sizes are evenly spaced from `min_samples` to N.
        seed: of the draw of subsets.

    Raises:
        ValueError: there are too few samples, a setting is out of range, or something is not finite.
    """
    rows = finite_rows(samples, name="samples").cpu().numpy()
    if min_samples < 2 or num_points < 3:
        raise ValueError(f"expected at least 2 samples and 3 points, found {min_samples} and {num_points}")
    if len(rows) <= min_samples:
        raise ValueError(
            f"an extrapolated Frechet distance needs features of more than {min_samples} samples, found {len(rows)}"
        )
    real = fitted(reference, ddof=1)
    sizes = np.linspace(min_samples, len(rows), num_points).astype(np.int64)
    values = frechet_distances_to(_subsets(rows, sizes, seed), real.mean, real.covariance)
    intercept, error = _intercept(1.0 / sizes, np.array(values))
    spread = frechet(rows, real.mean, real.covariance).stderr
    assert spread is not None
    stderr = float(np.hypot(error, spread))
    return Estimate(intercept, stderr, normal_interval(intercept, stderr), HOW)


@register_metric("frechet_infinity")
@dataclass(frozen=True)
class FrechetInfinity(Metric):
    """Frechet distance extrapolated to infinitely many samples; `fid_infinity` or `fd_<extractor>_infinity`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.MOMENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("fid_infinity", "lower"),
        ScoreName("fd_<extractor>_infinity", "lower"),
    )
    source: ClassVar[str] = "Chong and Forsyth 2020, arXiv:1911.07023, Sec. 3.2"

    min_samples: Several = 5000
    """Least size of a subset; preset `dgm-eval` takes N/10 where that is less."""
    num_points: Several = 15
    seed: Whole = 0
    preset: Literal["chong-forsyth", "dgm-eval"] = "chong-forsyth"
    """Where the sizes of subsets begin."""

    def __post_init__(self) -> None:
        if self.min_samples < 2 or self.num_points < 3:
            raise ValueError(f"expected at least 2 samples and 3 points, found {self.min_samples}, {self.num_points}")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: too few samples, no features of them but only moments, or features that are not finite.
        """
        owner = "an extrapolated Frechet distance"
        samples, reference = sides(evidence.features, owner=owner)
        if isinstance(samples, Statistics):
            raise ValueError(f"{owner} needs features of the samples, found their moments only")
        assert evidence.features is not None
        start = self.min_samples
        if self.preset == "dgm-eval":
            start = min(start, max(len(samples) // 10, 2))
        estimate = frechet_infinity(samples, reference, min_samples=start, num_points=self.num_points, seed=self.seed)
        fid = evidence.features
        score = scored(
            named(fid.extractor, inception="fid", other="fd") + "_infinity",
            estimate,
            better="lower",
            kind="estimate",
            num_samples=len(samples),
            num_reference=reference.num_samples,
            protocol={
                **fid.protocol,
                "min_samples": start,
                "num_points": self.num_points,
                "seed": self.seed,
                **counted(samples, reference),
            },
        )
        return (score,)


def _subsets(rows: np.ndarray, sizes: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    for size in sizes:
        yield rows[random.permutation(len(rows))[:size]]


def _intercept(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Value at x = 0 of the least-squares line, and its standard error."""
    centred = x - x.mean()
    slope = float(centred @ y) / float(centred @ centred)
    intercept = float(y.mean()) - slope * float(x.mean())
    rest = y - intercept - slope * x
    variance = float(rest @ rest) / (len(x) - 2)
    return intercept, float(np.sqrt(variance * (1.0 / len(x) + float(x.mean()) ** 2 / float(centred @ centred))))
