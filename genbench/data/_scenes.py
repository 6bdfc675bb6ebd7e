"""Scenes of one flat object on a plain background, and their antialiased pictures.

A scene lives in the unit square (x to the right, y downwards); a picture of it is the area average of its colour over
each pixel. Coverage comes in closed form from a signed distance d (in pixels): an edge at distance d from the middle of
a pixel leaves a share clamp(1/2 - d, 0, 1) of it covered, exactly so for an edge along the grid. Below 64 pixels the
coverage is averaged from 64, because corners and thin arms need it, and so that a small picture is the large one
shrunk.

Only IEEE additions, products, quotients and roots are used (rotations by the half-angle formula, no sine), so that the
pictures are the same bits on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

FINE = 64
"""Least resolution, in pixels, at which coverage is computed before it is averaged."""
BLOCK = 1 << 16
"""Pixels rendered at a time: 256 KiB of float32, so that every pass stays in a core's cache."""


@dataclasses.dataclass(frozen=True)
class Scenes:
    """N scenes; lengths in units of the picture's width, colours in 0 .. 255."""

    shape: np.ndarray
    """(N,) int64: index into `DISTANCES`."""
    centre: np.ndarray
    """(N, 2) float64: x and y of the centre of area."""
    radius: np.ndarray
    """(N,) float64: the size; a circle's radius."""
    half_tangent: np.ndarray
    """(N,) float64: tan(angle / 2) of the rotation."""
    colour: np.ndarray
    """(N, 3) float64, red, green and blue of the object."""
    background: np.ndarray
    """(N, 3) float64."""

    def __getitem__(self, rows: np.ndarray) -> Scenes:
        return Scenes(**{field.name: vars(self)[field.name][rows] for field in dataclasses.fields(self)})


def circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the circle of radius 1."""
    return np.asarray(np.sqrt(u * u + v * v) - np.float32(1.0))


SQUARE = np.float32(1.0)
"""Half the side of a square of size 1: as wide as the circle, and 27 percent larger, which shows even at 8 pixels."""


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the square of half side `SQUARE`, with sharp corners."""
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) - SQUARE)


TRIANGLE = np.float32(1.16)
"""Distance from the centre of area to a corner of a triangle of size 1."""


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the equilateral triangle that stands on its base, with sharp corners."""
    slanted = np.float32(3.0**0.5 / 2.0) * np.abs(u) - np.float32(0.5) * v
    return np.asarray(np.maximum(slanted, v) - TRIANGLE / np.float32(2.0))


ARM_LENGTH = np.float32(1.05)
ARM_WIDTH = np.float32(0.35)
"""Half the length and half the width of the two bars of a cross of size 1."""


def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the upright cross, with sharp corners."""
    a, b = np.abs(u), np.abs(v)
    return np.asarray(np.maximum(np.minimum(a, b) - ARM_WIDTH, np.maximum(a, b) - ARM_LENGTH))


DISTANCES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (circle, square, triangle, cross)
"""Signed distance of each shape at size 1, over coordinates (u, v) with v downwards."""


def render(scenes: Scenes, resolution: int) -> np.ndarray:
    """Pictures of the scenes: (N, 3, resolution, resolution) uint8, values 0 .. 255."""
    num_scenes = len(scenes.shape)
    pictures = np.empty((num_scenes, 3, resolution, resolution), dtype=np.uint8)
    step = max(1, BLOCK // max(resolution, FINE) ** 2)
    for shape, distance in enumerate(DISTANCES):
        members = np.flatnonzero(scenes.shape == shape)
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            pictures[rows] = _paint(scenes[rows], distance, resolution)
    return pictures


def _paint(scenes: Scenes, distance: Callable[[np.ndarray, np.ndarray], np.ndarray], resolution: int) -> np.ndarray:
    cover = coverage(scenes, distance, resolution)[:, None]  # (N, 1, R, R)
    contrast = (scenes.colour - scenes.background).astype(np.float32)[:, :, None, None]
    plain = scenes.background.astype(np.float32)[:, :, None, None] + np.float32(0.5)  # truncation below rounds
    painted = np.minimum(plain + contrast * cover, np.float32(255.0))  # 256 would wrap around to 0
    return np.asarray(painted.astype(np.uint8))


def coverage(scenes: Scenes, distance: Callable[[np.ndarray, np.ndarray], np.ndarray], resolution: int) -> np.ndarray:
    """Share of each pixel that the object covers: (N, resolution, resolution) float32 in [0, 1]."""
    times = max(1, FINE // resolution)
    fine = times * resolution
    middles = ((np.arange(fine) + 0.5) / fine).astype(np.float32)
    t = scenes.half_tangent
    scale = 1.0 / ((1.0 + t * t) * scenes.radius)
    cos, sin = (_column((1.0 - t * t) * scale), _column(2.0 * t * scale))  # both over the radius
    x = middles[None, None, :] - _column(scenes.centre[:, 0])  # (N, 1, fine)
    y = middles[None, :, None] - _column(scenes.centre[:, 1])  # (N, fine, 1)
    pixels = _column(scenes.radius * fine)
    cover = np.float32(0.5) - pixels * distance(cos * x + sin * y, cos * y - sin * x)
    np.clip(cover, np.float32(0.0), np.float32(1.0), out=cover)
    # Strided sums rather than mean(): the order of the additions is fixed.
    parts = [cover[:, i::times, j::times] for i in range(times) for j in range(times)]
    return np.asarray(sum(parts[1:], start=parts[0]) * np.float32(1.0 / times**2))


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]
