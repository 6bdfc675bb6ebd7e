"""What samplers of noised data take: a denoiser, a starting point and the noise levels to visit.

A sampler is a function `sampler(denoise, x, levels, *, generator, ...)`, one to a file. It starts from `x`, noised to
the first of the levels, asks `denoise` at their times and returns floats without noise. What else a sampler needs
follows from the estimate x_0_hat = denoise(x_t, t) and the level's alpha and sigma:

eps_hat = (x_t - alpha x_0_hat) / sigma,  score = -eps_hat / sigma
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genbench.prob.noise_schedule import NoiseLevels


class Denoiser(Protocol):
    """Estimates the data behind noised data."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Estimate x_0: the shape of `x_t`, (B, ...).

        Args:
            x_t: (B, ...) float.
            t: (B,) times, of the type of `NoiseLevels.t`.
        """


class Slope(Protocol):
    """Gradient of a log-probability of noised data, such as that of a class given them."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """The gradient in `x_t`, of its shape; arguments as of `Denoiser`."""


def times(levels: NoiseLevels, x: Tensor) -> tuple[Tensor, ...]:
    """Times of all levels on the device of `x`, each repeated for its rows: S tensors (B,), copied at once."""
    return levels.t.to(x.device)[:, None].expand(-1, len(x)).unbind()


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the shape, type and device of `x`."""
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
