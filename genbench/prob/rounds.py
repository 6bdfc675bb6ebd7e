"""Statistics of timed rounds.

Readings of one process share its luck: where its memory lies, which clock it got, who else was there. On one busy
machine the deviation of log-times was 0.31 between processes and 0.10 within them, so more readings of one process
soon add nothing. A round, a fresh process, is therefore the unit: its median is one independent value, and intervals
come from the spread between rounds, on the log scale, where a factor is a shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from genbench.core.bench import Measure
from genbench.core.record import Better
from genbench.prob.shift import Shift, paired_shift, shift, unpaired_shift

LogRatio = Shift
"""A shift of logarithms: `exp` makes factors of its estimate and its ends."""
FENCE = 1.5
"""Interquartile ranges beyond the quartiles from which on a reading is an outlier (Tukey 1977, Sec. 2E)."""
P99_READINGS = 300
"""Below this many readings a 99th percentile says nothing."""
_QUANTILES = {"p50": 0.5, "p90": 0.9}


def summarise(rounds: Sequence[Sequence[float]], *, name: str, unit: str, better: Better) -> Measure:
    """What rounds say of one quantity: the geometric mean of their medians, with a t-interval on the log scale.

        value = exp(mean_k log m_k),   ci95 = exp(mean_k log m_k -+ t_{0.975, K-1} s / sqrt(K))

    with m_k the median of round k and s the deviation of log m_k.

    Args:
        rounds: raw readings of each round, all positive; in the order in which they were taken.
        name: of the quantity.
        unit: of the quantity.
        better: its good direction.

    Raises:
        ValueError: there are no rounds, or a round has no readings or one that is not positive.
    """
    readings = [_checked(values) for values in rounds]
    if not readings:
        raise ValueError(f"`{name}`: no rounds to summarise")
    medians = [float(np.median(values)) for values in readings]
    value, ci95 = geometric_mean(medians)
    pooled = np.concatenate(readings)
    quantiles = _QUANTILES if len(pooled) < P99_READINGS else {**_QUANTILES, "p99": 0.99}
    return Measure(
        name=name,
        unit=unit,
        better=better,
        value=value,
        ci95=ci95,
        medians=tuple(medians),
        interquartile=float(
            np.mean([np.subtract(*np.quantile(values, [0.75, 0.25])) / np.median(values) for values in readings])
        ),
        outliers=sum(num_outliers(values) for values in readings),
        autocorrelation=_mean_autocorrelation(readings),
        quantiles={label: quantile_interval(pooled, q) for label, q in quantiles.items()},
    )


def geometric_mean(values: Sequence[float] | np.ndarray) -> tuple[float, tuple[float, float] | None]:
    """Geometric mean of positive values with its 95 % t-interval on the log scale; None for a single value."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    if len(logs) < 2:
        return float(np.exp(logs.mean())), None
    found = shift(float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs)), len(logs) - 1)
    return math.exp(found.estimate), (math.exp(found.low), math.exp(found.high))


def num_outliers(values: np.ndarray) -> int:
    """Values below Q1 - 1.5 (Q3 - Q1) or above Q3 + 1.5 (Q3 - Q1)."""
    low, high = np.quantile(values, [0.25, 0.75])
    reach = FENCE * (high - low)
    return int(((values < low - reach) | (values > high + reach)).sum())


def autocorrelation(values: np.ndarray) -> float | None:
    """Lag-1 autocorrelation r_1 = sum_i (x_i - m)(x_{i+1} - m) / sum_i (x_i - m)^2.

    None below three values, or where they are all equal (Box, Jenkins and Reinsel 2008, Eq. 2.1.12).
    """
    centred = values - values.mean()
    power = float((centred**2).sum())
    if len(values) < 3 or power == 0.0:
        return None
    return float((centred[:-1] * centred[1:]).sum()) / power


def quantile_interval(values: Sequence[float] | np.ndarray, q: float) -> tuple[float, float | None, float | None]:
    """The q-quantile of independent values with ends of a 95 % interval that assumes no law.

    The number of values below the true quantile is binomial, so the order statistics X_(l) and X_(u) with

        P(Bin(n, q) <= l - 1) <= 0.025   and   P(Bin(n, q) <= u - 1) >= 0.975

    hold it at least 95 times in 100 (Conover 1999, Sec. 3.2). An end that n values are too few for is None.

    Args:
        values: (n,), n > 0.
        q: in 0 .. 1, ends excluded.
    """
    ranked = np.sort(np.asarray(values, dtype=np.float64))
    num = len(ranked)
    if num == 0 or not 0.0 < q < 1.0:
        raise ValueError(f"a quantile needs values and 0 < q < 1, found {num} values and q = {q}")
    below = stats.binom.cdf(np.arange(num), num, q)  # (n,) P(Bin <= i), i = 0 .. n - 1
    low = int(np.searchsorted(below, 0.025, side="right"))  # how many i have P(Bin <= i) <= 0.025: this is l
    high = int(np.searchsorted(below, 0.975, side="left")) + 1  # the first i with P(Bin <= i) >= 0.975 is u - 1
    return (
        float(np.quantile(ranked, q)),
        float(ranked[low - 1]) if low >= 1 else None,
        float(ranked[high - 1]) if high <= num else None,
    )


def paired_log_ratio(base_medians: Sequence[float], head_medians: Sequence[float], *, level: float = 0.95) -> LogRatio:
    """log(head / base) over K >= 2 pairs of rounds that are neighbours in time, with its t-interval.

    What both rounds of a pair share, such as a warm machine, cancels in their ratio.
    """
    return paired_shift(np.log(_checked(base_medians)).tolist(), np.log(_checked(head_medians)).tolist(), level=level)


def unpaired_log_ratio(
    base_medians: Sequence[float], head_medians: Sequence[float], *, level: float = 0.95
) -> LogRatio:
    """log(head / base) of rounds that were not taken side by side, by Welch's t."""
    return unpaired_shift(np.log(_checked(base_medians)).tolist(), np.log(_checked(head_medians)).tolist(), level=level)


def _checked(values: Sequence[float]) -> np.ndarray:
    readings = np.asarray(values, dtype=np.float64)
    if len(readings) == 0 or not (np.isfinite(readings) & (readings > 0.0)).all():
        raise ValueError(f"readings are positive and finite, and there is at least one; found {list(values)[:5]}")
    return readings


def _mean_autocorrelation(rounds: Sequence[np.ndarray]) -> float | None:
    known = [found for values in rounds if (found := autocorrelation(values)) is not None]
    return float(np.mean(known)) if known else None
