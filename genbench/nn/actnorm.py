"""Activation normalisation: a per-channel affine map that starts from the statistics of one batch.

Kingma, Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, Sec. 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_STD = 1e-3
"""A channel that is constant in the first batch is divided by this rather than by zero."""


class ActNorm(nn.Module):
    """`y = (x - mean) exp(-log_std)` per channel, with both parameters trained; the identity until initialised.

    Args:
        num_channels: size of axis 1 of the input; (B, D) and (B, C, H, W) are accepted.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_channels))
        self.log_std = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised input, and the log-determinant of the map, which no example changes: (B, C, ...) and ()."""
        log_det = -self.log_std.sum() * (x[0].numel() // len(self.log_std))
        return (x - _per_channel(self.mean, x)) * _per_channel(-self.log_std, x).exp(), log_det

    def inverse(self, y: Tensor) -> Tensor:
        """Input whose normalised form is `y`: (B, C, ...)."""
        return y * _per_channel(self.log_std, y).exp() + _per_channel(self.mean, y)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set both parameters so that every channel of `x` comes out with mean 0 and variance 1."""
        rows = x.transpose(0, 1).flatten(1)  # (C, B * positions)
        self.mean.copy_(rows.mean(1))
        self.log_std.copy_(rows.std(1, correction=0).clamp(min=MIN_STD).log())


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.ndim - 2))
