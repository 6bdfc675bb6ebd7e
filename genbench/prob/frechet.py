"""Frechet distance between Gaussians, its standard error and its small-sample bias.

Legend: `mu1, S1` mean and covariance of the samples, `mu2, S2` of the reference, `s` the eigenvalues
of `(S1 S2)^(1/2)`, `T` the optimal transport map from the first Gaussian to the second.

    FD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, Eq. 6). Error and bias are the first
and the second term of its expansion in the sample covariance (`gaussian_coupling`), so that one
decomposition serves all three.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genbench.prob.gaussian_coupling import Coupling, RowCoupling, couple, couple_factored, couple_rows, factored
from genbench.prob.moments import Rows, as_rows, moments_of

BiasForm = Literal["kept", "gaussian", "fourth_moment"]

#: Samples whose influence is measured, at the least: their standard deviation, and so the standard error, has a
#: relative error of 2 % for a normal influence and of `sqrt((kurtosis - 1)/4096)` for others.
_LEAST_ERROR_ROWS = 1024
#: Operations that measuring more of them may cost, in multiply-adds.
_ERROR_BUDGET = 2**28
#: Least `1 - c/(2 sum s)` in a bias: with so few samples the expansion says nothing more.
_LEAST_GROWTH = 0.5
#: Rows taken through a coupling at once.
_BLOCK = 4096


@dataclass(frozen=True)
class FrechetResult:
    """A squared Frechet distance with what the same decomposition says of it."""

    value: float
    """Plug-in distance, at least 0."""
    stderr: float | None
    """Over the draw of the samples, reference held fixed; None where only their moments are known."""
    bias: float | None
    """Expected excess of `value` to order 1/N; None where it was not asked for or a count is unknown."""
    error_rows: int = 0
    """Samples whose influence was measured for `stderr`."""


def frechet(
    features: Rows,
    mean2: np.ndarray,
    cov2: np.ndarray,
    *,
    ddof: int = 1,
    num2: int | None = None,
    bias: BiasForm = "kept",
    reference: Rows | None = None,
) -> FrechetResult:
    """Squared Frechet distance between the moments of `features` and a Gaussian, with error and bias.

    With no more rows than columns the covariance is singular; its factor is then the centred features
    themselves, which is faster and free of noise from the null space.

    Args:
        features: (N, F) of any float type, N > 1.
        mean2: (F,).
        cov2: (F, F), symmetric positive semidefinite.
        ddof: N - ddof stands in the denominator of the first covariance.
        num2: examples behind `mean2` and `cov2`; needed for the bias.
        bias: `gaussian`: its closed form for Gaussian data; `fourth_moment`: with the fourth moments
            of the samples, and of the reference where `reference` gives them; `kept`: not computed.
        reference: (M, F), examples of the reference for its fourth moments; None: those of a Gaussian.

    Raises:
        ValueError: there are fewer than 2 rows, or something is not finite.
    """
    values = as_rows(features, size=len(mean2))
    if len(values) < 2:
        raise ValueError(f"a Frechet distance needs features of at least 2 samples, found {len(values)}")
    _check_finite(mean2, cov2)
    fit = _fit(values, cov2, ddof=ddof)
    value = _assemble(fit.mean - mean2, fit.trace, float(np.trace(cov2)), float(fit.coupling.roots.sum()))
    kept, influence = _influence(values, fit, mean2, num_rows=_error_rows(len(values), len(mean2)))
    stderr = float(influence.std(ddof=1)) / float(np.sqrt(len(values))) if len(influence) > 1 else None
    excess = None
    if bias != "kept" and num2:
        excess = _bias(values, fit, cov2, num2=num2, form=bias, reference=reference, ddof=ddof)
    return FrechetResult(value, stderr, excess, len(kept))


def frechet_between(
    mean1: np.ndarray,
    cov1: np.ndarray,
    mean2: np.ndarray,
    cov2: np.ndarray,
    *,
    num1: int | None = None,
    num2: int | None = None,
    ddof: int = 1,
) -> FrechetResult:
    """Squared Frechet distance between two Gaussians; with both counts also the Gaussian bias.

    Args:
        mean1: (F,).
        cov1: (F, F), symmetric positive semidefinite; singular is fine.
        mean2: (F,).
        cov2: (F, F), likewise.
        num1: examples behind the first moments.
        num2: examples behind the second.
        ddof: count - ddof stands in the denominators of the covariances.

    Raises:
        ValueError: something is not finite.
    """
    _check_finite(mean1, cov1, mean2, cov2)
    roots = couple(cov1, cov2).roots
    traces = float(np.trace(cov1)), float(np.trace(cov2))
    value = _assemble(mean1 - mean2, *traces, float(roots.sum()))
    excess = None
    if num1 and num2:
        bracket = _gaussian_bracket(roots)
        excess = _expanded(traces, (bracket, bracket), (num1, num2), float(roots.sum()), ddof=ddof)
    return FrechetResult(value, None, excess)


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Frechet distance between two Gaussians, at least 0; arguments of `frechet_between`."""
    return frechet_between(mean1, cov1, mean2, cov2).value


def frechet_distance_to(features: Rows, mean2: np.ndarray, cov2: np.ndarray, *, ddof: int = 1) -> float:
    """Squared Frechet distance between the moments of `features` and a Gaussian, and no more than that.

    Arguments as of `frechet`.
    """
    values = as_rows(features, size=len(mean2))
    _check_finite(mean2, cov2)
    fit = _fit(values, cov2, ddof=ddof)
    return _assemble(fit.mean - mean2, fit.trace, float(np.trace(cov2)), float(fit.coupling.roots.sum()))


def frechet_distances_to(sets: Iterable[np.ndarray], mean2: np.ndarray, cov2: np.ndarray) -> list[float]:
    """Distances of several sets of features (N, F) from one Gaussian, which is decomposed once.

    Equal to `frechet_distance_to` of each, with ddof 1.
    """
    _check_finite(mean2, cov2)
    factor, trace2, found = factored(cov2), float(np.trace(cov2)), []
    for features in sets:
        if len(features) <= features.shape[1]:
            found.append(frechet_distance_to(features, mean2, cov2))
            continue
        moments = moments_of(features)
        cov1 = moments.covariance()
        cross = float(couple_factored(cov2, factor, cov1).roots.sum())
        found.append(_assemble(moments.mean - mean2, float(np.trace(cov1)), trace2, cross))
    return found


def frechet_influence(features: Rows, mean2: np.ndarray, cov2: np.ndarray) -> np.ndarray:
    """Influence of each sample on the distance, reference held fixed: (N,) float64, mean 0.

        IF(x) = 2 (mu1 - mu2)'(x - mu1) + (x - mu1)'(I - T)(x - mu1), centred

    The distance moves by about IF(x)/N when x is drawn once more, so its variance is `Var IF / N`, and
    that of the difference of two models' distances from one reference `Var (IF_a - IF_b) / N` where
    sample i of both comes from the same seed. Shapes as of `frechet`.
    """
    values = as_rows(features, size=len(mean2))
    _check_finite(mean2, cov2)
    return _influence(values, _fit(values, cov2, ddof=1), mean2, num_rows=len(values))[1]


def frechet_standard_error(features: Rows, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Standard error of the distance over the draw of `features`, by the delta method; shapes as of `frechet`."""
    influence = frechet_influence(features, mean2, cov2)
    return float(influence.std(ddof=1) / np.sqrt(len(influence)))


def two_sample_standard_error(features1: Rows, features2: Rows) -> float:
    """Standard error of the distance between two drawn sets, (N, F) and (M, F), over the draw of both.

    The draws are independent: `Var IF1 / N + Var IF2 / M`, each influence against the other's moments.
    """
    first, second = moments_of(features1), moments_of(features2)
    one = frechet_standard_error(features1, second.mean, second.covariance())
    two = frechet_standard_error(features2, first.mean, first.covariance())
    return float(np.hypot(one, two))


def frechet_bias(cov1: np.ndarray, cov2: np.ndarray, *, num1: int, num2: int) -> float:
    """Expected excess of the plug-in distance over the true one, to order 1/N, for Gaussian data.

        tr S1/n1 + tr S2/n2 + c,    c = (1/n1 + 1/n2)/2 [sum_ij s_i s_j/(s_i + s_j) + sum_i s_i/2],

    with `c` brought from the samples' roots to the true ones: c/(1 - c/(2 sum s)).
    """
    zero = np.zeros(len(cov1))
    return frechet_between(zero, cov1, zero, cov2, num1=num1, num2=num2).bias or 0.0


def covariance_of(features: Rows, *, ddof: int = 1) -> np.ndarray:
    """Covariance (F, F) float64 of features (N, F), with N - ddof in the denominator."""
    return moments_of(features).covariance(ddof)


@dataclass(frozen=True)
class _Fit:
    """The samples' Gaussian, coupled with the reference."""

    mean: np.ndarray
    trace: float
    coupling: Coupling | RowCoupling


def _fit(values: np.ndarray, cov2: np.ndarray, *, ddof: int) -> _Fit:
    if len(values) <= values.shape[1]:
        exact = values.astype(np.float64)
        mean = exact.mean(axis=0)
        centred = exact - mean
        trace = float((centred**2).sum()) / (len(values) - ddof)
        return _Fit(mean, trace, couple_rows(centred, cov2, ddof=ddof))
    moments = moments_of(values)
    cov1 = moments.covariance(ddof)
    return _Fit(moments.mean, float(np.trace(cov1)), couple(cov1, cov2))


def _error_rows(num: int, size: int) -> int:
    """Samples whose influence is measured: all where they are few or short."""
    return min(num, max(_LEAST_ERROR_ROWS, _ERROR_BUDGET // size**2))


def _influence(values: np.ndarray, fit: _Fit, mean2: np.ndarray, *, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, spread evenly over all of them, and their centred influence."""
    kept = np.linspace(0, len(values) - 1, num_rows).astype(np.int64)
    found = np.empty(num_rows)
    for part in _blocks(num_rows):
        centred = values[kept[part]].astype(np.float64) - fit.mean
        transported = fit.coupling.form.forms(_white(fit, centred, kept[part]), fit.coupling.roots)
        found[part] = 2.0 * centred @ (fit.mean - mean2) + (centred**2).sum(axis=1) - transported
    return kept, found - found.mean()


def _white(fit: _Fit, centred: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows, given by their indices too, made white under their own Gaussian: (r, N)."""
    return fit.coupling.white(rows) if isinstance(fit.coupling, RowCoupling) else fit.coupling.white(centred)


def _bias(
    values: np.ndarray,
    fit: _Fit,
    cov2: np.ndarray,
    *,
    num2: int,
    form: BiasForm,
    reference: Rows | None,
    ddof: int,
) -> float:
    """Bias to order 1/N in the form asked for."""
    roots = fit.coupling.roots
    own = other = _gaussian_bracket(roots)
    if form == "fourth_moment":
        own = _fourth_bracket(values, fit)
        if reference is not None:
            rows = as_rows(reference, size=len(fit.mean))
            other = _fourth_bracket(rows, _fit(rows, covariance_of(values), ddof=1))
    traces = fit.trace, float(np.trace(cov2))
    return _expanded(traces, (own, other), (len(values), num2), float(roots.sum()), ddof=ddof)


def _expanded(
    traces: tuple[float, float], brackets: tuple[float, float], counts: tuple[int, int], cross: float, *, ddof: int
) -> float:
    """Bias: of the mean, of the curvature, and where `ddof` is 0 that of the covariances.

    The curvature's term `c` is proportional to the roots, which the samples show too small by c/2 in
    the sum; at the true ones it is therefore c/(1 - c/(2 sum s)). That is within order 1/N of `c`
    and leaves about half of what `c` leaves at 4 samples for each feature.
    """
    own = [(trace - (1 - ddof) * (trace - cross)) / count for trace, count in zip(traces, counts, strict=True)]
    curvature = sum(bracket / count for bracket, count in zip(brackets, counts, strict=True))
    grown = 1.0 - curvature / (2.0 * cross) if cross > 0.0 else 1.0
    return sum(own) + curvature / max(grown, _LEAST_GROWTH)


def _gaussian_bracket(roots: np.ndarray) -> float:
    """[sum_ij s_i s_j/(s_i + s_j) + sum_i s_i/2]/2, over the roots above rounding."""
    s = roots[roots > roots.max(initial=0.0) * len(roots) * np.finfo(np.float64).eps]
    return 0.5 * (float(_kernel(s).sum()) + 0.5 * float(s.sum()))


def _fourth_bracket(values: np.ndarray, fit: _Fit) -> float:
    """[sum_ij s_i s_j/(s_i + s_j) (E w_i^2 w_j^2 - [i = j])]/2, with the mean over all rows."""
    roots = fit.coupling.roots
    kernel, total = _kernel(roots), 0.0
    for part in _blocks(len(values)):
        white = _white(fit, values[part].astype(np.float64) - fit.mean, np.arange(len(values))[part])
        squares = np.square(fit.coupling.form.coordinates(white).T, dtype=np.float64)  # (N, r)
        total += float(((squares @ kernel) * squares).sum())
    return 0.5 * (total / len(values) - 0.5 * float(roots.sum()))


def _kernel(s: np.ndarray) -> np.ndarray:
    """s_i s_j/(s_i + s_j), 0 where both vanish."""
    total = np.add.outer(s, s)
    total[total <= 0.0] = 1.0
    return np.asarray(np.outer(s, s) / total)


def _blocks(num: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, num)) for start in range(0, num, _BLOCK)]


def _assemble(shift: np.ndarray, trace1: float, trace2: float, cross: float) -> float:
    return max(0.0, float(shift @ shift) + trace1 + trace2 - 2.0 * cross)


def _check_finite(*arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a Frechet distance needs finite features and moments, found NaN or infinity")
