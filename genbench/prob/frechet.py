"""Frechet distance between Gaussians, its standard error and its small-sample bias.

Legend: `mu1, S1` mean and covariance of the samples, `mu2, S2` of the reference, `Li Li' = Si`,
`T = S1^-1/2 (S1^1/2 S2 S1^1/2)^1/2 S1^-1/2` the optimal transport map from the first to the second.

    FD = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500.) No square root of a matrix is ever
formed: `tr (S1 S2)^(1/2)` is the sum of the singular values of `L1' L2`, for any factors.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

#: Below this ratio of the extreme eigenvalues of L1' S2 L1, rounding of the small ones would show
#: after the square root (6e-13 of the largest term each); singular values do not suffer from it.
WELL_CONDITIONED = 1e-8


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Frechet distance between two Gaussians, at least 0.

    Args:
        mean1: (F,).
        cov1: (F, F), symmetric, positive semidefinite; singular is fine.
        mean2: (F,).
        cov2: (F, F), likewise.

    Raises:
        ValueError: something is not finite.
    """
    _check_finite(mean1, cov1, mean2, cov2)
    return _assemble(mean1 - mean2, float(np.trace(cov1)), float(np.trace(cov2)), _cross_trace(cov1, cov2))


def frechet_distance_to(features: np.ndarray, mean2: np.ndarray, cov2: np.ndarray, *, ddof: int = 1) -> float:
    """Squared Frechet distance between the moments of `features` and a Gaussian, at least 0.

    With no more rows than columns the covariance is singular; its factor is then the centred
    features themselves, which is faster and free of noise from the null space.

    Args:
        features: (N, F), N > 1.
        mean2: (F,).
        cov2: (F, F).
        ddof: N - ddof stands in the denominator of the covariance.
    """
    _check_finite(features, mean2, cov2)
    values = np.asarray(features, dtype=np.float64)
    mean1 = values.mean(axis=0)
    if len(values) > values.shape[1]:
        return frechet_distance(mean1, covariance_of(values, ddof=ddof), mean2, cov2)
    factor = (values - mean1) / np.sqrt(len(values) - ddof)  # (N, F), S1 = factor' factor
    cross = float(linalg.svdvals(factor @ _factor(cov2)).sum())
    return _assemble(mean1 - mean2, float((factor**2).sum()), float(np.trace(cov2)), cross)


def frechet_standard_error(features: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Standard error of the distance over the draw of `features`, by the delta method.

    The influence of a sample x on the distance is (reference held fixed)

        IF(x) = 2 (mu1 - mu2)'(x - mu1) + (x - mu1)'(I - T)(x - mu1),

    and the variance of the distance is Var IF / N. Shapes as in `frechet_distance_to`.
    """
    values = np.asarray(features, dtype=np.float64)
    mean1 = values.mean(axis=0)
    centred = values - mean1
    transported = centred @ transport_map(covariance_of(values), cov2)
    influence = 2.0 * centred @ (mean1 - mean2) + (centred * (centred - transported)).sum(axis=1)
    return float(influence.std(ddof=1) / np.sqrt(len(values)))


def transport_map(cov1: np.ndarray, cov2: np.ndarray) -> np.ndarray:
    """The symmetric map T with T S1 T = S2, on the range of S1: (F, F).

    With S1 = L1 L1' it is L1^-T (L1' S2 L1)^(1/2) L1^-1.
    """
    eigenvalues, vectors = linalg.eigh(cov1)
    kept = eigenvalues > _rank_cut(eigenvalues)
    half = vectors[:, kept] * np.sqrt(eigenvalues[kept])  # (F, r)
    inverse_half = vectors[:, kept] / np.sqrt(eigenvalues[kept])
    squares, rotation = linalg.eigh(half.T @ cov2 @ half)
    turned = inverse_half @ rotation
    return np.asarray((turned * np.sqrt(np.maximum(squares, 0.0))) @ turned.T)


def frechet_bias(cov1: np.ndarray, cov2: np.ndarray, *, num1: int, num2: int) -> float:
    """Expected excess of the plug-in distance over the true one, to order 1/N, for Gaussian data.

        tr S1/n1 + tr S2/n2 + (1/n1 + 1/n2)/2 [sum_ij s_i s_j/(s_i + s_j) + sum_i s_i/2],

    where s are the eigenvalues of (S1^1/2 S2 S1^1/2)^(1/2).
    """
    s = linalg.svdvals(_factor(cov1).T @ _factor(cov2))
    s = s[s > _rank_cut(s)]
    pairs = float((np.outer(s, s) / np.add.outer(s, s)).sum())
    curvature = 0.5 * (1.0 / num1 + 1.0 / num2) * (pairs + 0.5 * float(s.sum()))
    return float(np.trace(cov1)) / num1 + float(np.trace(cov2)) / num2 + curvature


def covariance_of(features: np.ndarray, *, ddof: int = 1) -> np.ndarray:
    """Covariance (F, F) of features (N, F), with N - ddof in the denominator."""
    return np.atleast_2d(np.cov(np.asarray(features, dtype=np.float64), rowvar=False, ddof=ddof))


def _cross_trace(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """Return tr (S1 S2)^(1/2)."""
    try:
        lower = linalg.cholesky(cov1, lower=True)
    except linalg.LinAlgError:
        return float(linalg.svdvals(_factor(cov1).T @ _factor(cov2)).sum())
    eigenvalues = linalg.eigvalsh(lower.T @ cov2 @ lower)
    if eigenvalues[0] > WELL_CONDITIONED * eigenvalues[-1]:
        return float(np.sqrt(eigenvalues).sum())
    return float(linalg.svdvals(_factor(cov1).T @ _factor(cov2)).sum())


def _factor(cov: np.ndarray) -> np.ndarray:
    """L with L L' = cov, one column for each eigenvalue above rounding: (F, rank)."""
    eigenvalues, vectors = linalg.eigh(cov)
    kept = eigenvalues > _rank_cut(eigenvalues)
    return np.asarray(vectors[:, kept] * np.sqrt(eigenvalues[kept]))


def _rank_cut(eigenvalues: np.ndarray) -> float:
    """What rounding alone can make of a zero eigenvalue."""
    return float(np.abs(eigenvalues).max(initial=0.0)) * len(eigenvalues) * float(np.finfo(np.float64).eps)


def _assemble(shift: np.ndarray, trace1: float, trace2: float, cross: float) -> float:
    return max(0.0, float(shift @ shift) + trace1 + trace2 - 2.0 * cross)


def _check_finite(*arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a Frechet distance needs finite features and moments, found NaN or infinity")
