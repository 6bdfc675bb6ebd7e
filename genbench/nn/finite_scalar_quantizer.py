"""Finite scalar quantisation: every channel rounded to a few levels, codes without a codebook.

Finite Scalar Quantization: VQ-VAE Made Simple. Mentzer, Minnen, Agustsson and Tschannen, 2023, 2309.15505.

Symbols: z a feature of d channels, L_i levels of channel i, K = prod L_i codes, q whole numbers, v values. For a
channel with L levels (Sec. 3.1, Appendix A.1):

    q = round(h tanh(z + s) - o),    h = (L - 1) (1 - eps) / 2,    o = 0 for odd L, 1/2 for even L,    tanh(s) = o / h,
    v = q / floor(L / 2).

An odd L has q = -(L-1)/2 .. (L-1)/2; an even one q = -L/2 .. L/2 - 1, for which the range of the tanh is moved down
by a half; the shift s lets z = 0 still mean q = 0. The code of a feature counts its q in mixed radix,
sum_i (q_i + floor(L_i / 2)) prod_{j<i} L_j.

**Departures**: s is the inverse of the tanh, so that z = 0 falls on q = 0 exactly; the listing in the appendix takes a
tangent there, which is close to it for many levels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MARGIN = 1e-3  # eps of the listing in Appendix A.1: a saturated tanh stays short of the edge of the last level
FEWEST_LEVELS = 3  # with two the shift that keeps 0 at 0 would be infinite


@dataclasses.dataclass(frozen=True)
class Rounded:
    """Features replaced by the values they are rounded to."""

    values: Tensor
    """(B, d, H, W) in [-1, 1]; gradients pass through the rounding as if there were none, and through the tanh."""
    codes: Tensor
    """(B, H, W) int64, 0 .. K-1."""


class FiniteScalarQuantizer(nn.Module):
    """Levels for each channel of a feature; nothing to learn.

    Args:
        levels: L_i for each of the d channels, 3 or more.
    """

    half_range: Tensor
    offset: Tensor
    shift: Tensor
    half_width: Tensor
    radix: Tensor
    levels: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < FEWEST_LEVELS:
            raise ValueError(f"expected {FEWEST_LEVELS} or more levels for each of some channels, found {list(levels)}")
        self.num_codes, self.code_dim = math.prod(levels), len(levels)
        half_ranges = [(L - 1) * (1.0 - MARGIN) / 2.0 for L in levels]
        offsets = [0.0 if L % 2 else 0.5 for L in levels]
        shifts = [math.atanh(offset / half) for offset, half in zip(offsets, half_ranges, strict=True)]
        self._keep("half_range", half_ranges)
        self._keep("offset", offsets)
        self._keep("shift", shifts)
        self._keep("half_width", [float(L // 2) for L in levels])
        self._keep("radix", [math.prod(levels[:i]) for i in range(len(levels))])
        self._keep("levels", list(levels))

    def forward(self, features: Tensor) -> Rounded:
        """Quantise features (B, d, H, W)."""
        bounded = self.bounded(features)
        q = bounded.detach().round()
        values = (bounded + (q - bounded).detach()) / self.half_width
        return Rounded(values, self._numbered(q))

    def bounded(self, features: Tensor) -> Tensor:
        """Features before rounding, h tanh(z + s) - o: (B, d, H, W), within half a unit of the lowest and highest q."""
        return self.half_range * torch.tanh(features + self.shift) - self.offset

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """Codes of features (B, d, H, W): (B, H, W) int64."""
        return self._numbered(self.bounded(features).round())

    def embed(self, codes: Tensor) -> Tensor:
        """Values of codes (B, H, W): (B, d, H, W) in [-1, 1]."""
        digits = codes.unsqueeze(1) // self.radix % self.levels
        return (digits - self.half_width) / self.half_width

    def _numbered(self, q: Tensor) -> Tensor:
        """Codes of whole numbers q (B, d, H, W): (B, H, W) int64."""
        return ((q + self.half_width).long() * self.radix).sum(1)

    def _keep(self, name: str, numbers: Sequence[float]) -> None:
        """A constant for each channel, (d, 1, 1), that moves with the module and is saved nowhere."""
        self.register_buffer(name, torch.tensor(numbers).view(-1, 1, 1), persistent=False)
