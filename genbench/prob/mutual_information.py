"""Mutual information of binned codes with labelled factors, every pair at once, with the pull of each example.

The plug-in estimate `I = sum_bv p(b, v) log(p(b, v) / (p(b) p(v)))` over a contingency table, in nats. What becomes of
it when one example is taken out depends on the example's cell alone, because with `phi(n) = n log n`

    I = (sum_bv phi(n_bv) - sum_b phi(n_b) - sum_v phi(n_v)) / N + log N

so the exact delete-one jackknife (Efron and Stein 1981) of every pair costs one look-up an example.

Bins are those of Locatello et al. 2019, arXiv:1811.12359: equal widths between a latent's extremes. A value on an
edge belongs to the bin above it; edges are rounded to the precision of the codes, so float32 is to stay float32.

Legend: `N` examples, `D` latents, `K` factors, `B` bins, `V` values of all factors together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MutualInformation:
    """Plug-in estimates for D latents and K factors, with what their derivatives need."""

    values: np.ndarray
    """(D, K) float64, nats."""
    entropies: np.ndarray
    """(K,) float64, nats, of the factors."""
    bins: np.ndarray
    """(N, D) int64, 0 .. B-1."""
    columns: np.ndarray
    """(N, K) int64: which of the V values each example has."""
    pulls: np.ndarray
    """(D, B, V) float64: (N - 1) times what the mutual information loses with one example of the cell."""
    entropy_pulls: np.ndarray
    """(V,) float64: the same of the entropies."""

    def pull(self, weights: np.ndarray, entropy_weights: np.ndarray) -> np.ndarray:
        """Jackknife pull of each example on `sum_dk weights I + sum_k entropy_weights H`: (N,).

        Their standard deviation over the square root of N is the jackknife's standard error of that sum.

        Args:
            weights: (D, K), derivatives by the mutual informations.
            entropy_weights: (K,), derivatives by the entropies.
        """
        found: np.ndarray = self.entropy_pulls[self.columns] @ entropy_weights  # (N,)
        for d, k in np.argwhere(weights):
            found += weights[d, k] * self.pulls[d, self.bins[:, d], self.columns[:, k]]
        return found


def histogram_bins(codes: np.ndarray, num_bins: int) -> np.ndarray:
    """Bin of each code between the extremes of its latent: (N, D) int64, 0 .. num_bins-1.

    Args:
        codes: (N, D) float; edges are computed in their precision.
        num_bins: of equal width.
    """
    found = np.empty(codes.shape, dtype=np.int64)
    for d in range(codes.shape[1]):
        edges = np.histogram_bin_edges(codes[:, d], num_bins)
        found[:, d] = np.searchsorted(edges[:-1], codes[:, d], side="right") - 1
    return found.clip(0)


def mutual_information(bins: np.ndarray, factors: np.ndarray) -> MutualInformation:
    """Mutual information of each column of `bins` with each column of `factors`.

    Args:
        bins: (N, D) int, 0 or above.
        factors: (N, K) int, any values.
    """
    columns, starts = _columns(factors)
    counts = _contingency(bins, columns, int(columns.max()) + 1)  # (D, B, V)
    num, factor_of = float(len(bins)), np.repeat(np.arange(len(starts)), np.diff([*starts, counts.shape[2]]))
    rows, totals = np.add.reduceat(counts, starts, axis=2)[:, :, 0], counts[0].sum(0)  # (D, B), (V,)
    of_cells = np.add.reduceat(_phi(counts).sum(1), starts, axis=1)  # (D, K)
    of_rows, of_values = _phi(rows).sum(1)[:, None], np.add.reduceat(_phi(totals), starts)
    values = (of_cells - of_rows - of_values) / num + np.log(num)
    entropies = np.log(num) - of_values / num
    left, log_left = num - 1.0, float(np.log(num - 1.0))
    fewer = of_cells[:, factor_of][:, None] - _drop(counts) - (of_rows - _drop(rows))[:, :, None]
    fewer -= of_values[factor_of] - _drop(totals)
    pulls = left * (values[:, factor_of][:, None] - log_left) - fewer
    entropy_pulls = left * (entropies[factor_of] - log_left) + of_values[factor_of] - _drop(totals)
    return MutualInformation(values.clip(0.0), entropies, bins, columns, pulls, entropy_pulls)


def _phi(counts: np.ndarray) -> np.ndarray:
    """`n log n`, 0 at 0."""
    return np.asarray(counts * np.log(np.maximum(counts, 1.0)))


def _drop(counts: np.ndarray) -> np.ndarray:
    """What `n log n` loses when n falls by one; 0 at 0, where there is nothing to take."""
    return np.asarray(_phi(counts) - _phi(np.maximum(counts - 1.0, 0.0)))


def _columns(factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each factor's values as columns of one common table, (N, K), and where each factor's columns start, (K,)."""
    columns, starts, total = np.empty(factors.shape, dtype=np.int64), [], 0
    for k in range(factors.shape[1]):
        values, inverse = np.unique(factors[:, k], return_inverse=True)
        columns[:, k] = inverse + total
        starts.append(total)
        total += len(values)
    return columns, np.asarray(starts)


def _contingency(bins: np.ndarray, columns: np.ndarray, num_columns: int) -> np.ndarray:
    """Examples in bin b of latent d with value v: (D, B, V) float64."""
    num_bins = int(bins.max()) + 1
    counts = np.empty((bins.shape[1], num_bins, num_columns))
    for d in range(bins.shape[1]):
        cells = (bins[:, d, None] * num_columns + columns).ravel()
        counts[d] = np.bincount(cells, minlength=num_bins * num_columns).reshape(num_bins, num_columns)
    return counts
