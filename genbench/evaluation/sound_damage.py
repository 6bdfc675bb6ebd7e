"""Damaged and meaningless sounds, each with a grade, for training feature extractors.

Every function takes amplitudes (B, 1, T) float in [-1, 1] and returns amplitudes of the same shape, which may lie
outside: they are clipped when they are stored. The grade orders damage by how far from real data it should lie: 0 is
untouched, 1 is damage that a listener hears at once, 4 is silence, 8 is uniform noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.evaluation._damage_kinds import Kind, shared_out
from genbench.prob import mu_law


@dataclass(frozen=True)
class DamagedSounds:
    """Sounds after damage; row i of every tensor belongs to sound i."""

    codes: Tensor
    """(B, 1, T) uint8, mu-law codes with 256 levels."""
    grade: Tensor
    """(B,) float32."""
    legible: Tensor
    """(B,) bool: the factors can still be read and are to be predicted."""
    meaningless: Tensor
    """(B,) bool: no answer is right, and none is to be given with confidence."""


def damaged_sounds(codes: Tensor, *, generator: Generator) -> DamagedSounds:
    """Leave about half of the sounds (B, 1, T) uint8 as they are and damage the others."""
    return DamagedSounds(
        *shared_out(
            KINDS,
            codes,
            generator=generator,
            opened=lambda part: torch.from_numpy(mu_law.decode(part.numpy())).float(),
            closed=lambda sound: torch.from_numpy(mu_law.encode(sound.numpy())),
        )
    )


def untouched(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the sounds themselves, grade 0."""
    return x, torch.zeros(len(x))


def hiss(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Gaussian noise of 0.5 to 10 % of full scale, grade up to 1.25."""
    sigma = _uniform(len(x), 0.005, 0.1, generator)
    return x + sigma * torch.randn(x.shape, generator=generator), sigma.flatten() / 0.08


def muffled(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A blur over time of 0.7 to 3 samples, grade up to 1."""
    sigma = float(_uniform(1, 0.7, 3.0, generator))
    reach = max(1, round(3.0 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    padded = F.pad(x, (reach, reach), mode="replicate")
    return F.conv1d(padded, (taps / taps.sum())[None, None]), torch.full((len(x),), sigma / 3.0)


def coarse(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Amplitudes rounded to steps of 2 to 25 % of full scale, grade up to 1.25."""
    step = _uniform(len(x), 0.02, 0.25, generator)
    return (x / step).round() * step, step.flatten() / 0.2


def blend(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two sounds at once, grade 2; of two or more."""
    weight = _uniform(len(x), 0.3, 0.7, generator)
    return weight * x + (1.0 - weight) * x.roll(1, dims=0), torch.full((len(x),), 2.0)


def collage(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The beginning of one sound and the end of another, grade 2; of two or more."""
    cut = _uniform(len(x), 0.35, 0.65, generator) * x.shape[-1]
    return torch.where(torch.arange(x.shape[-1]) < cut, x, x.roll(1, dims=0)), torch.full((len(x),), 2.0)


def silent(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Nothing but up to 1 % of noise, grade 4."""
    sigma = _uniform(len(x), 0.0, 0.01, generator)
    return sigma * torch.randn(x.shape, generator=generator), torch.full((len(x),), 4.0)


def rumble(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noise of a few slow waves, smoothly joined, grade 5."""
    points = int(torch.randint(4, 33, (), generator=generator))
    slow = 2.0 * torch.rand((len(x), 1, points), generator=generator) - 1.0
    joined = F.interpolate(slow, size=x.shape[-1], mode="linear", align_corners=True)
    return joined, torch.full((len(x),), 5.0)


def buried(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Gaussian noise of 20 to 60 % of full scale over the sound, grade 5 to 7."""
    sigma = _uniform(len(x), 0.2, 0.6, generator)
    return x + sigma * torch.randn(x.shape, generator=generator), 4.0 + sigma.flatten() * 5.0


def shuffled(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The sound's own amplitudes in random order, grade 6."""
    order = torch.rand(x.shape, generator=generator).argsort(dim=2)
    return x.gather(2, order), torch.full((len(x),), 6.0)


def noise(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """All codes equally likely, grade 8."""
    codes = torch.randint(256, x.shape, generator=generator)
    return torch.from_numpy(mu_law.decode(codes.numpy())).float(), torch.full((len(x),), 8.0)


KINDS = (
    Kind(untouched, 0.50, 0.0),
    Kind(hiss, 0.08, 0.6),
    Kind(muffled, 0.06, 0.4),
    Kind(coarse, 0.06, 0.4),
    Kind(blend, 0.05, 0.0, meaningless=True),
    Kind(collage, 0.05, 0.0, meaningless=True),
    Kind(silent, 0.03, 0.0, meaningless=True),
    Kind(rumble, 0.03, 0.0, meaningless=True),
    Kind(buried, 0.04, 0.0, meaningless=True),
    Kind(shuffled, 0.04, 0.0, meaningless=True),
    Kind(noise, 0.06, 0.0, meaningless=True),
)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return (low + (high - low) * torch.rand(count, generator=generator)).view(-1, 1, 1)
