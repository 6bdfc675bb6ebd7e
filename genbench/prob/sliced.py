"""Sliced squared Wasserstein distance: one-dimensional optimal transport along random directions.

Legend: `theta` of the formulas is a row of `directions`; X (n, F) and Y (m, F) are two samples;
`phi` is a Kantorovich potential, `L` the number of directions.

    SW^2(X, Y) = mean over theta of W^2(theta.X, theta.Y),  W^2(a, b) = int_0^1 (F_a^-1 - F_b^-1)^2 du

(Bonneel et al. 2015, Sec. 3; Rabin et al. 2011.) Sets of unequal size are coupled by their quantile
functions, exactly: nothing is dropped. The first-order influence of a point is the potential of the
one-dimensional transport averaged over directions, whose slope is 2 (x - T(x)) (del Barrio,
Gordaliza and Loubes 2019, Theorem 2.1). Directions are visited in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genbench.prob.intervals import Estimate, normal_interval

DIRECTIONS = 64
"""Directions projected on at once: this many doubles are held per point."""
INFLUENCE_DIRECTIONS = 256
"""Directions over which potentials are averaged: enough to know a variance, a quarter of the cost of 1000."""


@dataclass(frozen=True)
class SlicedDistance:
    """Squared distances along each direction, and what each point adds to their mean."""

    squared: np.ndarray
    """(L,) float64."""
    influence_x: np.ndarray
    """(n,) float64, centred: derivative of the mean squared distance by the weight of a point of X."""
    influence_y: np.ndarray
    """(m,) float64, the same for Y."""

    @property
    def value(self) -> float:
        """Mean over directions."""
        return float(self.squared.mean())

    @property
    def variance(self) -> float:
        """Of `value`: the draw of X, of Y and of the directions."""
        drawn = sum(float(part.var()) / len(part) for part in (self.influence_x, self.influence_y))
        chosen = float(self.squared.var(ddof=1)) / len(self.squared) if len(self.squared) > 1 else 0.0
        return drawn + chosen


def random_directions(num_directions: int, num_features: int, *, generator: torch.Generator) -> Tensor:
    """Directions uniform on the sphere, drawn in single precision: (num_directions, num_features) float64."""
    drawn = torch.randn(num_directions, num_features, generator=generator, dtype=torch.float32).double()
    return torch.nn.functional.normalize(drawn, dim=1)


def sliced_wasserstein_squared(
    x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, num_directions: int, seed: int
) -> np.ndarray:
    """Squared 2-Wasserstein distance along random directions: (num_directions,) float64, each >= 0.

    Their mean is the squared sliced distance.

    Args:
        x: (n, F).
        y: (m, F); m may differ from n.
        num_directions: how many.
        seed: of torch's CPU generator.

    Raises:
        ValueError: a set is empty or not a matrix, or the widths differ.
    """
    return sliced_distance(x, y, num_directions=num_directions, seed=seed).squared


def sliced_distance(
    x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, num_directions: int, seed: int
) -> SlicedDistance:
    """As `sliced_wasserstein_squared`, with the influence of each point."""
    first, second = _checked(x, y)
    generator = torch.Generator().manual_seed(seed)
    return sliced_distance_along(first, second, random_directions(num_directions, first.shape[1], generator=generator))


def sliced_distance_along(x: Tensor, y: Tensor, directions: Tensor) -> SlicedDistance:
    """Squared distances along given unit vectors (L, F)."""
    if len(directions) < 1:
        raise ValueError("a sliced distance needs at least 1 direction, found 0")
    x, y = _checked(x, y)
    coupling = _coupling(len(x), len(y))
    squared = torch.empty(len(directions), dtype=torch.float64)
    influence_x, influence_y = (torch.zeros(len(part), dtype=torch.float64) for part in (x, y))
    for rows, on_x, on_y in _projections(x, y, directions):
        (sorted_x, order_x), (sorted_y, order_y) = on_x.sort(dim=1), on_y.sort(dim=1)
        gaps = sorted_x[:, coupling.index_x] - sorted_y[:, coupling.index_y]
        squared[rows] = (gaps * gaps) @ coupling.mass
        if rows.start >= INFLUENCE_DIRECTIONS:
            continue
        influence_x.scatter_add_(0, order_x.flatten(), _potential(sorted_x, sorted_y[:, coupling.partner_x]).flatten())
        influence_y.scatter_add_(0, order_y.flatten(), _potential(sorted_y, sorted_x[:, coupling.partner_y]).flatten())
    averaged = min(len(directions), INFLUENCE_DIRECTIONS)
    return SlicedDistance(squared.numpy(), *(_centred(part, averaged) for part in (influence_x, influence_y)))


def gaussian_sliced_wasserstein(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> Estimate:
    """Closed approximation of the sliced distance in many dimensions, not squared; >= 0.

        SW = sqrt(|mu_x - mu_y|^2 / F + (sqrt(v_x) - sqrt(v_y))^2),  v = mean |x - mu|^2 / F

    Projections of many weakly dependent features are nearly Gaussian, so that only means and mean
    variances remain (Nadjahi et al. 2021, arXiv:2106.15427, Eq. 13). Standard error: delta method.

    Raises:
        ValueError: fewer than 2 points in a set, or the widths differ.
    """
    first, second = _checked(x, y, least=2)
    num_features = first.shape[1]
    shift = first.mean(dim=0) - second.mean(dim=0)
    spreads = [(part - part.mean(dim=0)).square().sum(dim=1) / num_features for part in (first, second)]
    roots = [float(part.mean()) ** 0.5 for part in spreads]
    squared = float(shift.square().sum()) / num_features + (roots[0] - roots[1]) ** 2
    variance = 0.0
    for part, spread, root, sign in zip((first, second), spreads, roots, (1.0, -1.0), strict=True):
        moved = (2.0 * sign / num_features) * ((part - part.mean(dim=0)) @ shift)
        widened = (spread - spread.mean()) * (sign * (roots[0] - roots[1]) / root) if root > 0.0 else 0.0
        variance += float((moved + widened).var(unbiased=True)) / len(part)
    return root_estimate(squared, variance, how="delta method over both sets")


def root_estimate(squared: float, variance: float, *, how: str) -> Estimate:
    """The square root of a squared distance, with the standard error that the delta method gives it."""
    value, half = max(squared, 0.0) ** 0.5, variance**0.5
    stderr = half / (2.0 * value) if value > 0.0 else half**0.5
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0), how)


@dataclass(frozen=True)
class _Coupling:
    """The monotone coupling of n and m equal weights, in terms of ranks."""

    index_x: Tensor
    index_y: Tensor
    mass: Tensor
    partner_x: Tensor
    """(n,): the rank in Y that the middle of each weight of X is sent to."""
    partner_y: Tensor


def _coupling(n: int, m: int) -> _Coupling:
    """Cut [0, 1] at all i/n and j/m; in units of 1/(nm), so that no level is rounded."""
    cuts = np.unique(np.concatenate([np.arange(n + 1) * m, np.arange(m + 1) * n]))
    starts = cuts[:-1]
    to_y, to_x = (2 * np.arange(n) + 1) * m // (2 * n), (2 * np.arange(m) + 1) * n // (2 * m)
    parts = (starts // m, starts // n, np.diff(cuts) / (n * m), to_y, to_x)
    index_x, index_y, mass, partner_x, partner_y = (torch.from_numpy(part) for part in parts)
    return _Coupling(index_x, index_y, mass, partner_x, partner_y)


def _projections(x: Tensor, y: Tensor, directions: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    for start in range(0, len(directions), DIRECTIONS):
        rows = slice(start, min(start + DIRECTIONS, len(directions)))
        yield rows, directions[rows] @ x.T, directions[rows] @ y.T  # (block, n), (block, m)


def _potential(points: Tensor, targets: Tensor) -> Tensor:
    """Potential at sorted points, from its slope 2 (x - T(x)) by the trapezoid rule: (block, n)."""
    slope = points - targets
    steps = (points[:, 1:] - points[:, :-1]) * (slope[:, 1:] + slope[:, :-1])
    phi = torch.zeros_like(points)
    torch.cumsum(steps, dim=1, out=phi[:, 1:])
    return phi - phi.mean(dim=1, keepdim=True)


def _centred(influence: Tensor, num_directions: int) -> np.ndarray:
    mean = influence / num_directions
    return np.asarray((mean - mean.mean()).numpy())


def _checked(x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, least: int = 1) -> tuple[Tensor, Tensor]:
    first, second = (
        torch.as_tensor(np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part).detach().cpu().double()
        for part in (x, y)
    )
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.shape[1]:
        raise ValueError(
            f"a sliced distance needs two matrices of one width, found {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if min(len(first), len(second)) < least:
        raise ValueError(
            f"a sliced distance needs at least {least} points in each set, found {len(first)} and {len(second)}"
        )
    return first, second
