"""Optimal coupling of two Gaussians: what a Frechet distance, its error and its bias share.

Legend: `S1 = L L'`, `M = L' S2 L = U diag(s^2) U'`. The numbers `s` are the eigenvalues of
`(S1 S2)^(1/2)`; a centred row `x` has the coordinates `w = U' L^-1 x`, white under the first Gaussian,
in which the transport map `T = L^-T U diag(s) U' L^-1` is diagonal: `x' T x = sum_i s_i w_i^2`
(Olkin and Pukelsheim 1982; Knott and Smith 1984). No square root of a matrix is formed.

`L` comes from a Cholesky factorisation whose columns fall in size, so that `M` is graded and its small
eigenvalues come out to their own digits and not to those of the largest one: by falling variances at
first, which costs a third of pivoting, and with pivoting, which finds the rank, where that meets a
pivot near rounding. Eigenvalues come from the tridiagonal form of `M`, which gives `x' T x` as well:
errors need no eigenvector (`tridiagonal`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import blas, lapack

from genbench.prob.tridiagonal import Tridiagonal, tridiagonal

#: Error in the sum of `s`, relative to both traces, up to which eigenvalues need no second opinion.
_TOLERANCE = 1e-12
#: Error of an eigenvalue, in roundings of the largest: 1 or less has been seen up to 2048 rows.
_ROUNDINGS = 4.0
#: Errors of single eigenvalues that cancel in the determinant hide from it by no more than this, as a rule.
_SAFETY = 10.0
#: Least squared pivot, relative to the largest variance and the rounding of F terms, that needs no pivoting.
_CLEAR = 100.0


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Of two covariances (F, F), the first of rank r."""

    roots: np.ndarray
    """(r,) float64, ascending: `s`."""
    form: Tridiagonal
    """Of `M`."""
    upper: np.ndarray
    """(r, r) float64: `L'` over the leading coordinates."""
    order: np.ndarray
    """(r,) int: the leading coordinates; rows in the range of S1 are known by these."""

    def white(self, centred: np.ndarray) -> np.ndarray:
        """`L^-1 x` of centred rows (N, F) float64 in the range of S1: (r, N)."""
        return np.asarray(blas.dtrsm(1.0, self.upper, centred.T[self.order], trans_a=1))


@dataclass(frozen=True, kw_only=True)
class RowCoupling:
    """Of the covariance of N rows, N <= F, and another; `L` is then the centred rows themselves."""

    roots: np.ndarray
    """(N-1,) float64, ascending: `s`."""
    form: Tridiagonal
    """Of `M`."""
    scale: float
    """Root of the covariance's denominator."""

    def white(self, rows: np.ndarray) -> np.ndarray:
        """`L^-1 x` of some of the rows themselves, by their indices (n,): (N-1, n). As `x = L e_i`, all is known."""
        own = np.zeros((len(self.roots) + 1, len(rows)))
        own[rows, np.arange(len(rows))] = self.scale
        return _reflect(own)[1:]


def couple(cov1: np.ndarray, cov2: np.ndarray) -> Coupling:
    """Coupling of two symmetric positive semidefinite matrices (F, F), either of them singular or not."""
    return couple_factored(cov1, factored(cov1), cov2)


def couple_factored(cov1: np.ndarray, factor: tuple[np.ndarray, np.ndarray], cov2: np.ndarray) -> Coupling:
    """As `couple`, with `factored(cov1)` at hand: for one matrix against many."""
    upper, order = factor  # (r, F)
    rank = len(upper)
    turned = cov2[np.ix_(order, order)].T  # in column order; symmetric
    if rank == len(order):
        product, _ = lapack.dsygst(turned, upper, itype=2, lower=0, overwrite_a=1)
    else:
        clean = np.triu(upper)
        product = blas.dgemm(1.0, clean @ turned, clean, trans_b=1)
    form = tridiagonal(product.T)
    squares = form.values
    trace = float(np.trace(cov1) + np.trace(cov2))
    if _blurred(squares) <= _TOLERANCE * trace:
        roots = np.sqrt(squares)
    else:
        roots = _careful_roots(squares, factor, cov2, tolerance=_TOLERANCE * trace)
    return Coupling(roots=roots, form=form, upper=upper[:, :rank], order=order[:rank])


def couple_rows(centred: np.ndarray, cov2: np.ndarray, *, ddof: int = 1) -> RowCoupling:
    """Coupling of the covariance of few centred rows (N, F) float64, N <= F, and a matrix (F, F).

    A reflection takes the rows' mean, which is zero, out as a row: the others have full rank as a rule,
    and the null space of the covariance adds no noise.
    """
    scale = np.sqrt(len(centred) - ddof)
    rows = _reflect(centred)[1:] / scale  # (N-1, F), S1 = rows' rows
    form = tridiagonal(rows @ cov2 @ rows.T)
    squares = form.values
    if _blurred(squares) <= _TOLERANCE * float((rows**2).sum() + np.trace(cov2)):
        roots = np.sqrt(squares)
    else:
        upper, order = factored(cov2)
        roots = _singular_values(rows[:, order] @ np.triu(upper).T, len(squares))
    return RowCoupling(roots=roots, form=form, scale=float(scale))


def factored(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factor `R` (r, F) and `order` (F,) with `cov[order][:, order] = R' R`, up to rounding.

    Only the upper trapezoid of `R` means anything.
    """
    cov, largest = np.asarray(cov, dtype=np.float64), float(cov.diagonal().max(initial=0.0))
    if largest <= 0.0:
        return np.zeros((0, len(cov))), np.arange(len(cov))
    order = np.argsort(-cov.diagonal(), kind="stable")
    upper, failed = lapack.dpotrf(cov[np.ix_(order, order)].T, lower=0, clean=0, overwrite_a=1)
    least = _CLEAR * len(cov) * float(np.finfo(np.float64).eps) * largest
    if not failed and float(upper.diagonal().min()) ** 2 > least:
        return upper, order
    factor, pivots, rank, _ = lapack.dpstrf(cov.T, lower=0)
    return factor[:rank], pivots - 1


def _blurred(squares: np.ndarray) -> float:
    """Error in the sum of roots that rounding of the largest eigenvalue can make, infinite if one is not positive."""
    if not len(squares):
        return 0.0
    if squares[0] <= 0.0:
        return np.inf
    rounding = _ROUNDINGS * float(np.finfo(np.float64).eps) * float(squares[-1])
    return rounding * float(np.linalg.norm(0.5 / np.sqrt(squares)))


def _careful_roots(
    squares: np.ndarray, factor: tuple[np.ndarray, np.ndarray], cov2: np.ndarray, *, tolerance: float
) -> np.ndarray:
    """Roots of eigenvalues that span many decades, or singular values where those cannot be trusted.

    Determinants tell: `log det M = log det S1 + log det S2`, and Cholesky factors give the right side to
    full relative accuracy. An error of size `delta` in all eigenvalues `m` moves the left by about
    `delta |1/m|`, which measures `delta`, and the sum of roots by `delta |1/(2 sqrt m)|`.
    """
    (upper, order), size = factor, len(cov2)
    if len(upper) == size and squares[0] > 0.0:
        other, failed = lapack.dpotrf(cov2.T, lower=0, clean=0)
        if not failed:
            expected = 2.0 * float(np.log(np.diag(upper)).sum() + np.log(np.diag(other)).sum())
            delta = abs(float(np.log(squares).sum()) - expected) / float(np.linalg.norm(1.0 / squares))
            if _SAFETY * delta * float(np.linalg.norm(0.5 / np.sqrt(squares))) <= tolerance:
                return np.asarray(np.sqrt(squares))
    upper2, order2 = factored(cov2)
    spread1, spread2 = np.zeros((len(upper), size)), np.zeros((len(upper2), size))
    spread1[:, order], spread2[:, order2] = np.triu(upper), np.triu(upper2)
    return _singular_values(spread1 @ spread2.T, len(upper))


def _singular_values(matrix: np.ndarray, num: int) -> np.ndarray:
    """Singular values, ascending, with zeros before them to make `num`."""
    if 0 in matrix.shape:
        return np.zeros(num)
    found = torch.linalg.svdvals(torch.from_numpy(np.ascontiguousarray(matrix))).numpy()[::-1]
    return np.concatenate([np.zeros(num - len(found)), found])


def _reflect(rows: np.ndarray) -> np.ndarray:
    """Rows (N, F) turned by the reflection that swaps the first axis and that of equal weights."""
    normal = np.full(len(rows), -1.0 / np.sqrt(len(rows)), dtype=rows.dtype)
    normal[0] += 1.0
    if not normal.any():
        return rows
    return np.asarray(rows - np.outer(normal * (2.0 / (normal @ normal)), normal @ rows))
