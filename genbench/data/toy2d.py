"""Five laws in the plane whose shape everybody can see, without end; exact densities where they exist.

Every law has mean 0 and variance near 1 along each axis, a label for the piece a point comes from, and independent
streams of random numbers for `train` and `test`; point i is a function of the law, the split and i alone.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.core.density import KnownDensity
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, uniforms

Law = Literal["two_moons", "checkerboard", "spirals", "gaussians25", "gaussians8"]
MOON_NOISE = 0.1
"""Standard deviation around the half circles of radius 1, before the scaling."""
MOON_SCALE = np.array([1.15, 2.0])
"""Factors that bring both variances near 1: 1.15 along the moons, 2 across."""
SPIRAL_TURN = 3.0 * math.pi
"""Angle that an arm winds through, radians."""
SPIRAL_NOISE = 0.05
GAUSSIAN_STD = {"gaussians25": 0.05, "gaussians8": 0.1}
"""Small against the distance of neighbouring means (0.7 and 1.07): the modes do not touch."""


@register_dataset("toy2d")
@dataclass(frozen=True)
class Toy2D(Dataset, KnownDensity):
    """Points (2,), float32."""

    source = "drawn on the spot; no licence needed"

    law: Law = "two_moons"
    """Which law; a label names the moon, the arm, the mode or the square."""

    @property
    def spec(self) -> DataSpec:
        """Vectors of two floats."""
        return DataSpec(kind="vector", shape=(2,), levels=None, num_classes=_NUM_PIECES[self.law])

    def size(self, split: Split) -> int | None:
        """None: there is no end to the points."""
        checked_split(split, self.splits, owner="toy2d")
        return None

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Points with the piece they come from as label."""
        checked_split(split, self.splits, owner="toy2d")
        rows = checked_indices(indices, size=None, owner=f"toy2d, {split}")
        points, pieces = draw(self.law, split, rows)
        return Batch(x=torch.from_numpy(points.astype(np.float32)), y=torch.from_numpy(pieces))

    def fingerprint(self) -> str:
        """Digest of the first 64 points of both splits to six decimals, which every machine agrees on."""
        return _fingerprint(self.law)

    def why_no_density(self) -> str | None:
        """Moons and spirals are curves with noise around them, whose density is an integral."""
        if self.law == "checkerboard" or self.law in GAUSSIAN_STD:
            return None
        return f"law `{self.law}` has no density in closed form; checkerboard, gaussians8, gaussians25 have"

    def log_density(self, x: Tensor) -> Tensor:
        """Exact log-density of points (B, 2): (B,), nats; -inf outside the support.

        Raises:
            ValueError: the law has no density in closed form.
        """
        reason = self.why_no_density()
        if reason is not None:
            raise ValueError(reason)
        if self.law == "checkerboard":
            return _log_checkerboard(x)
        return _log_mixture(x, means_of(self.law), GAUSSIAN_STD[self.law])


def draw(law: Law, split: Split, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) float64 and the pieces they come from (N,) int64, at the given indices."""
    u = uniforms(key_of("toy2d", law, split), indices, 4)
    piece = (u[:, 0] * _NUM_PIECES[law]).astype(np.int64)
    return _LAWS[law](piece, u[:, 1:]), piece


def means_of(law: Law) -> np.ndarray:
    """Means of a mixture of Gaussians, row = label: (8, 2) on a circle or (25, 2) on a grid."""
    if law == "gaussians8":
        angles = np.arange(8) * (math.pi / 4.0)
        return math.sqrt(2.0) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if law == "gaussians25":
        return 0.7 * np.stack(np.divmod(np.arange(25), 5), axis=1) - 1.4
    raise ValueError(f"law `{law}` is no mixture of Gaussians")


def _two_moons(piece: np.ndarray, u: np.ndarray) -> np.ndarray:
    angle, side = math.pi * u[:, 0], 1.0 - 2.0 * piece
    moon = np.stack([side * (np.cos(angle) - 0.5), side * (np.sin(angle) - 0.25)], axis=1)
    return np.asarray(MOON_SCALE * (moon + MOON_NOISE * _normal(u[:, 1:])))


def _checkerboard(piece: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Uniform on the 8 of the 16 unit squares of [-2, 2]^2 whose column and row have an even sum."""
    column, half = np.divmod(piece, 2)
    return np.asarray(np.stack([column, 2 * half + column % 2], axis=1) + u[:, :2] - 2.0)


def _spirals(piece: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Two arms of Archimedes; by the root, points are nearly equally dense along an arm."""
    share, side = np.sqrt(u[:, 0]), 1.0 - 2.0 * piece
    radius, angle = 2.0 * side * share, SPIRAL_TURN * share
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + SPIRAL_NOISE * _normal(u[:, 1:])


def _gaussians(law: Law) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    means, std = means_of(law), GAUSSIAN_STD[law]
    return lambda piece, u: np.asarray(means[piece] + std * _normal(u))


def _normal(u: np.ndarray) -> np.ndarray:
    """Two normals from the first two of the uniforms (Box and Muller, 1958): (N, 2)."""
    angle = 2.0 * math.pi * u[:, 1]
    return np.asarray(np.sqrt(-2.0 * np.log1p(-u[:, :1])) * np.stack([np.cos(angle), np.sin(angle)], axis=1))


_LAWS: dict[Law, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "two_moons": _two_moons,
    "checkerboard": _checkerboard,
    "spirals": _spirals,
    "gaussians25": _gaussians("gaussians25"),
    "gaussians8": _gaussians("gaussians8"),
}
_NUM_PIECES: dict[Law, int] = {"two_moons": 2, "checkerboard": 8, "spirals": 2, "gaussians25": 25, "gaussians8": 8}


def _log_checkerboard(x: Tensor) -> Tensor:
    cell = (x + 2.0).floor()
    inside = ((cell >= 0) & (cell < 4)).all(dim=1) & (cell.sum(dim=1) % 2 == 0)
    return torch.where(inside, x.new_full((), -math.log(8.0)), x.new_full((), -math.inf))


def _log_mixture(x: Tensor, means: np.ndarray, std: float) -> Tensor:
    square = (x[:, None] - torch.from_numpy(means).to(x)).square().sum(dim=2)  # (B, K)
    constant = math.log(len(means)) + math.log(2.0 * math.pi * std**2)
    return torch.logsumexp(-square / (2.0 * std**2), dim=1) - constant


@functools.cache
def _fingerprint(law: Law) -> str:
    digest = hashlib.sha256(law.encode())
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        points, _ = draw(law, split, np.arange(64))
        digest.update(np.round(points * 1e6).astype("<i8").tobytes())
    return digest.hexdigest()[:16]
