"""Functions of a symmetric matrix from its tridiagonal form, which its eigenvalues need anyway.

With `M = Q T Q'`, Q orthogonal and T tridiagonal, a quadratic form of a function of M is

    w' f(M) w = (Q'w)' f(T) (Q'w),    f(t) = a + b t/t_max + sum_j c_j p_j/(t + p_j)

where the rational function on the right, its poles `-p_j` evenly spaced in the logarithm, is fitted to `f` at the
eigenvalues, the only places where f(M) looks. Each pole costs the forward half of a tridiagonal solve. No eigenvector
is computed, which for large matrices would take longer than the eigenvalues. The error of the fit is known; where it
is not small, or the matrix is, eigenvectors serve after all.

Legend: `r` rows of M, `m` vectors w at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.linalg import lapack

#: From this many rows on reflections and eigenvectors are applied in single precision.
_SINGLE_FROM = 512
#: From this many rows on a rational function costs less than eigenvectors.
_RATIONAL_FROM = 1024
#: Distance of neighbouring poles in the logarithm: fits roots and logarithms over 12 decades to about 1e-5.
_SPACING = 1.6
#: Error of a fit, relative in the root of the mean square, above which eigenvectors serve instead.
_FIT_ERROR = 1e-4
#: Columns of a panel of `dsytrd`.
_PANEL = 32
#: Vectors taken through the solves of all poles together: what is written each step stays in cache.
_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Tridiagonal:
    """A symmetric matrix M (r, r) as eigenvalues and `Q T Q'`."""

    values: np.ndarray
    """(r,) float64, ascending: eigenvalues."""
    diagonal: np.ndarray
    """(r,) float64, of T."""
    beside: np.ndarray
    """(r-1,) float64: what stands beside the diagonal of T."""
    reflectors: torch.Tensor
    """(r-1, r-1): Householder vectors of Q below the diagonal; single precision where r is large."""
    scales: torch.Tensor
    """(r-1,): their factors."""

    def coordinates(self, columns: np.ndarray) -> np.ndarray:
        """Vectors (r, m) in the axes of M, in ascending order of eigenvalues: (r, m); single precision for large r."""
        kept = torch.from_numpy(np.ascontiguousarray(columns)).to(self.reflectors.dtype)
        found: np.ndarray = (self._vectors.T @ kept).numpy()
        return found

    def forms(self, columns: np.ndarray, function: np.ndarray, *, weights: np.ndarray | None = None) -> np.ndarray:
        """`w' f(M) w` of each of m vectors: (m,) float64.

        Args:
            columns: (r, m), the vectors.
            function: (r,), f at the ascending eigenvalues.
            weights: (r,), mean squared coordinates of the vectors in the axes of M, by which errors of a fit
                count; None where they are equal.
        """
        fit = None if len(self.values) < _RATIONAL_FROM else _fitted(self.values, function, weights)
        if fit is None:
            return np.asarray(np.square(self.coordinates(columns), dtype=np.float64).T @ function)
        parts = [columns[:, start : start + _AT_ONCE] for start in range(0, columns.shape[1], _AT_ONCE)]
        return np.concatenate([np.empty(0), *(self._rational(part, fit) for part in parts)])

    @cached_property
    def _vectors(self) -> torch.Tensor:
        """Eigenvectors of M, one a column: (r, r)."""
        matrix = torch.from_numpy(np.diag(self.diagonal) + np.diag(self.beside, -1))
        scaled = matrix / max(float(np.abs(self.values).max(initial=0.0)), np.finfo(np.float64).tiny)
        vectors: torch.Tensor = torch.linalg.eigh(scaled.to(self.reflectors.dtype), UPLO="L").eigenvectors
        if len(vectors) > 1:
            vectors[1:] = torch.ormqr(self.reflectors, self.scales, vectors[1:])
        return vectors

    def _rational(self, columns: np.ndarray, fit: _Fit) -> np.ndarray:
        """`w' f(M) w` by the rational function: (m,).

        With `T + p = L D L'` and `y = L^-1 w`, the form of `(T + p)^-1` is `sum_i y_i^2 / d_i`.
        """
        w = self._turned(columns)
        pivots, steps = self._factors(fit.poles)
        shares = (fit.factors * fit.poles / pivots)[:, :, None]  # (r, J, 1)
        y, term = np.zeros((2, len(fit.poles), w.shape[1]))
        total = np.zeros_like(y)
        for row, step, share in zip(w, steps[:, :, None], shares, strict=True):
            np.multiply(y, step, out=y)
            np.subtract(row, y, out=y)
            np.multiply(y, y, out=term)
            np.multiply(term, share, out=term)
            np.add(total, term, out=total)
        linear = self.diagonal @ np.square(w) + 2.0 * (self.beside @ (w[1:] * w[:-1]))
        return np.asarray(total.sum(axis=0) + fit.constant * np.square(w).sum(axis=0) + fit.slope * linear)

    def _turned(self, columns: np.ndarray) -> np.ndarray:
        """`Q' w`: (r, m) float64."""
        found = np.array(columns, dtype=np.float64, order="C")  # its rows are read one by one
        rest = torch.from_numpy(found[1:].T.copy()).T.to(self.reflectors.dtype)  # in column order, as LAPACK has it
        found[1:] = torch.ormqr(self.reflectors, self.scales, rest, transpose=True).numpy()
        return found

    def _factors(self, poles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of `T + p = L D L'` for each of J poles: `D`, and below the diagonal of L, both (r, J)."""
        pivots, steps = np.empty((2, len(self.diagonal), len(poles)))
        pivots[0], steps[0] = self.diagonal[0] + poles, 0.0
        for i, (middle, beside) in enumerate(zip(self.diagonal[1:], self.beside, strict=True), start=1):
            steps[i] = beside / pivots[i - 1]
            pivots[i] = middle + poles - beside * steps[i]
        return pivots, steps


def tridiagonal(lower: np.ndarray) -> Tridiagonal:
    """Tridiagonal form of a symmetric matrix (r, r) float64, of which the lower triangle is read.

    It is reduced from the first row and column on: if these are the largest of a graded matrix, its small eigenvalues
    come out to their own digits.
    """
    size = len(lower)
    kind = np.float32 if size >= _SINGLE_FROM else np.float64
    if size < 2:
        single, none = lower.astype(np.float64).reshape(size), torch.zeros(0, dtype=torch.float64)
        return Tridiagonal(
            values=single, diagonal=single, beside=none.numpy(), reflectors=none.reshape(0, 0), scales=none
        )
    packed, diagonal, beside, scales, _ = lapack.dsytrd(lower, lower=1, lwork=_PANEL * size)
    values, failed = lapack.dsterf(diagonal, beside)
    if failed:
        raise np.linalg.LinAlgError("eigenvalues of a tridiagonal matrix do not converge")
    reflectors = torch.from_numpy(np.ascontiguousarray(packed[1:, :-1].T, dtype=kind)).T
    return Tridiagonal(
        values=values,
        diagonal=diagonal,
        beside=beside,
        reflectors=reflectors,
        scales=torch.from_numpy(scales.astype(kind)),
    )


@dataclass(frozen=True)
class _Fit:
    """`f(t) = constant + slope t + sum_j factors_j poles_j/(t + poles_j)`."""

    constant: float
    slope: float
    poles: np.ndarray
    """(J,), above 0."""
    factors: np.ndarray
    """(J,)"""


def _fitted(values: np.ndarray, function: np.ndarray, weights: np.ndarray | None) -> _Fit | None:
    """Least squares at the eigenvalues; None where that is not close enough, or no eigenvalue is positive."""
    most, tiny = float(values[-1]), len(values) * float(np.finfo(np.float64).eps)
    if most <= 0.0 or values[0] < -tiny * most:
        return None
    low, high = 0.3 * max(float(values[0]), tiny * most), 3.0 * most
    poles = np.geomspace(low, high, 2 + int(np.log(high / low) / _SPACING))
    weight = np.ones((len(values), 1)) if weights is None else np.maximum(weights, 0.0)[:, None]
    basis = np.concatenate(
        [np.ones((len(values), 1)), values[:, None] / most, poles / (values[:, None] + poles)], axis=1
    )
    target = weight * function[:, None]
    found = np.linalg.lstsq(weight * basis, target, rcond=tiny)[0]
    if np.linalg.norm(weight * (basis @ found) - target) > _FIT_ERROR * np.linalg.norm(target):
        return None
    return _Fit(float(found[0, 0]), float(found[1, 0]) / most, poles, found[2:, 0])
