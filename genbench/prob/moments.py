"""Count, mean and covariance of a stream of feature rows, in float64, mergeable and resumable.

Two batches A and B with scatter matrices `M2 = sum (x - mean)(x - mean)'` merge by

    mean = mean_A + shift n_B/n,    M2 = M2_A + M2_B + shift shift' n_A n_B/n,    shift = mean_B - mean_A

(Chan, Golub and LeVeque 1979, Eq. 2.1). Subtracting `n mean mean'` from raw second moments instead
loses the digits that the squared mean takes up: all of them for features offset by 1e8 spreads.

The shift's term is one more row of the batch, so that each batch costs one symmetric rank update of
a single triangle (BLAS `syrk`), in place: half of a product, and no other (F, F) array.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from scipy.linalg import blas
from torch import Tensor

Rows = np.ndarray | Tensor
"""(N, F) rows of any float type."""

#: Rows promoted to float64 at once: 64 MiB of 2048 features.
_BLOCK = 4096


class Moments:
    """Accumulator of rows (N, F): add them in any order and batching, merge accumulators of shards."""

    def __init__(self, size: int) -> None:
        """Empty.

        Args:
            size: F, features of a row.
        """
        if size < 1:
            raise ValueError(f"moments need at least 1 feature, found {size}")
        self.count = 0
        self.mean = np.zeros(size)
        """(F,) float64."""
        self._upper = np.zeros((size, size), order="F")  # scatter, its upper triangle only

    @property
    def size(self) -> int:
        """Features of a row."""
        return len(self.mean)

    @property
    def scatter(self) -> np.ndarray:
        """Sum of outer products of centred rows: (F, F) float64, symmetric; a copy."""
        return _mirrored(self._upper)

    def covariance(self, ddof: int = 1) -> np.ndarray:
        """Covariance with `count - ddof` in the denominator: (F, F) float64.

        Raises:
            ValueError: there are too few rows.
        """
        if self.count <= ddof:
            raise ValueError(f"a covariance with ddof {ddof} needs at least {ddof + 1} rows, found {self.count}")
        found = self.scatter
        found /= self.count - ddof
        return found

    def add(self, rows: Rows) -> Self:
        """Take in rows (N, F) of any float type, promoted to float64 block by block; returns itself.

        Raises:
            ValueError: the rows have another shape, or some are not finite.
        """
        values = as_rows(rows, size=self.size)
        for start in range(0, len(values), _BLOCK):
            self._add_block(values[start : start + _BLOCK])
        return self

    def merge(self, other: Moments) -> Self:
        """Take in what another accumulator has seen; that one stays as it is; returns itself.

        Raises:
            ValueError: the other has another number of features.
        """
        if other.size != self.size:
            raise ValueError(f"moments of {self.size} features cannot take in those of {other.size}")
        if other.count:
            self._upper += other._upper
            self._update(self._step(other.mean, other.count)[None])
            self._move(other.mean, other.count)
        return self

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All of the state, for a file that `from_arrays` resumes from."""
        return {"count": np.array(self.count, dtype=np.int64), "mean": self.mean.copy(), "scatter": self.scatter}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Moments:
        """The accumulator that `to_arrays` described.

        Raises:
            ValueError: an array is missing, has the wrong shape or is not finite.
        """
        missing = sorted({"count", "mean", "scatter"} - set(arrays))
        if missing:
            raise ValueError(f"moments need the arrays count, mean and scatter, found none named {', '.join(missing)}")
        count, mean, scatter = int(arrays["count"]), arrays["mean"], arrays["scatter"]
        if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)) or count < 0:
            raise ValueError(f"moments have shapes (F,) and (F, F), found {mean.shape}, {scatter.shape}, count {count}")
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise ValueError("moments must be finite, found NaN or infinity")
        found = cls(len(mean))
        found.count, found.mean = count, np.array(mean, dtype=np.float64)
        found._upper = np.asfortranarray(np.triu(scatter).astype(np.float64))
        return found

    def _add_block(self, values: np.ndarray) -> None:
        centred = np.empty((len(values) + 1, self.size))
        centred[:-1] = values
        mean = centred[:-1].mean(axis=0)
        centred[:-1] -= mean
        # The rounding of the mean, small but common to the block: seen only once the offset is gone.
        rest = centred[:-1].mean(axis=0)
        centred[:-1] -= rest
        mean += rest
        centred[-1] = self._step(mean, len(values))
        self._update(centred)
        self._move(mean, len(values))

    def _step(self, mean: np.ndarray, count: int) -> np.ndarray:
        """The row whose outer product is the term of the shift."""
        return np.asarray((mean - self.mean) * np.sqrt(self.count * count / (self.count + count)))

    def _update(self, rows: np.ndarray) -> None:
        # Given one triangle in column order, BLAS writes into it and returns it.
        self._upper = blas.dsyrk(1.0, rows.T, beta=1.0, c=self._upper, overwrite_c=1)

    def _move(self, mean: np.ndarray, count: int) -> None:
        self.count += count
        self.mean = self.mean + (mean - self.mean) * (count / self.count)


def moments_of(rows: Rows) -> Moments:
    """Moments of rows (N, F) of any float type.

    Raises:
        ValueError: the rows are no matrix, or some are not finite.
    """
    values = as_rows(rows)
    return Moments(values.shape[1]).add(values)


def as_rows(rows: Rows, *, size: int | None = None) -> np.ndarray:
    """Rows as a numpy array of their own float type, checked: (N, F).

    Args:
        rows: of any float type, on any device.
        size: F, None to take any.

    Raises:
        ValueError: they are no matrix, have other than `size` columns, or some are not finite.
    """
    if isinstance(rows, Tensor):
        kept = rows.detach().cpu()
        rows = np.asarray((kept.float() if kept.dtype is torch.bfloat16 else kept).numpy())
    if rows.ndim != 2 or rows.shape[1] < 1 or (size is not None and rows.shape[1] != size):
        raise ValueError(f"features have shape (N, {'F' if size is None else size}), found {tuple(rows.shape)}")
    if not all(np.isfinite(rows[start : start + _BLOCK]).all() for start in range(0, len(rows), _BLOCK)):
        raise ValueError("features must be finite, found NaN or infinity")
    return rows


def _mirrored(upper: np.ndarray) -> np.ndarray:
    """The symmetric matrix of an upper triangle."""
    found = np.triu(upper)
    found += np.triu(found, 1).T
    return np.asarray(found)
