"""Embeddings of scalars: times, noise levels, positions."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal(t: Tensor, dim: int, *, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of `t` at frequencies 1 .. 1 / max_period (Vaswani et al. 2017, Sec. 3.5).

    Args:
        t: (B,) positions; neighbours that the network must tell apart should differ by about 1.
        dim: length of the embedding, even: first the sines, then the cosines.
        max_period: the slowest wave has this wavelength over 2 pi.

    Returns:
        (B, dim) float32, or float64 when `t` is.
    """
    if dim % 2 or dim < 4:
        raise ValueError(f"a sinusoidal embedding has an even length of at least 4, found {dim}")
    t = t if t.dtype == torch.float64 else t.float()
    octaves = torch.arange(dim // 2, device=t.device, dtype=t.dtype) / (dim // 2 - 1)
    angle = t[:, None] * torch.exp(-math.log(max_period) * octaves)  # (B, dim / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding followed by two linear layers: (B,) times to (B, out_dim).

    Args:
        dim: length of the sinusoidal embedding.
        out_dim: length of the result, and of the hidden layer.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.hidden = nn.Linear(dim, out_dim)
        self.out = nn.Linear(out_dim, out_dim)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times (B,)."""
        waves = sinusoidal(t, self.dim).to(self.hidden.weight.dtype)
        return cast("Tensor", self.out(F.silu(self.hidden(waves))))
