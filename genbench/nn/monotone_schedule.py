"""A learned noise schedule that can only rise (Kingma et al. 2021, arXiv:2107.00630).

gamma = -log SNR of x_t = alpha x_0 + sigma eps, with sigma^2 = sigmoid(gamma) and alpha^2 = sigmoid(-gamma).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MonotoneSchedule(nn.Module):
    """gamma(t) = gamma_0 + (gamma_1 - gamma_0) s(t), s rising from 0 to 1.

    s is g(t) = t + sum_j c_j sigmoid(a_j t + b_j) with positive a and c, made to run from 0 to 1; without units it is a
    straight line.

    Args:
        gamma_0: -log SNR of the data, at t = 0.
        gamma_1: -log SNR of the noise, at t = 1.
        units: sigmoids of g.
        learned_ends: whether gamma_0 and gamma_1 are parameters.
    """

    first: Tensor
    gap: Tensor

    def __init__(self, gamma_0: float, gamma_1: float, *, units: int, learned_ends: bool) -> None:
        super().__init__()
        first, gap = torch.tensor(gamma_0), torch.tensor(gamma_1 - gamma_0)
        if learned_ends:
            self.first, self.gap = nn.Parameter(first), nn.Parameter(gap)
        else:
            self.register_buffer("first", first, persistent=False)
            self.register_buffer("gap", gap, persistent=False)
        steepness = 10.0  # sigmoids as wide as a fifth of the way, one beside the other
        self.units = units
        if units:
            self.a = nn.Parameter(torch.full((units,), steepness))  # softplus leaves it as it is
            self.b = nn.Parameter(-steepness * (torch.arange(units) + 0.5) / units)
            self.c = nn.Parameter(torch.full((units,), math.log(math.expm1(0.1 / units))))  # c of 0.1 together

    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma_0 and gamma_1 - gamma_0, which is positive: scalars."""
        return self.first, self.gap.abs()

    def shape(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """s(t) and its slope s'(t) of times (B,): (B,) each."""
        if not self.units:
            return t, torch.ones_like(t)
        ends, _ = self._rise(t.new_tensor([0.0, 1.0]))
        g, slope = self._rise(t)
        return (g - ends[0]) / (ends[1] - ends[0]), slope / (ends[1] - ends[0])

    def forward(self, t: Tensor) -> Tensor:
        """gamma(t): (B,)."""
        first, gap = self.ends()
        return first + gap * self.shape(t)[0]

    def _rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a, c = F.softplus(self.a), F.softplus(self.c)
        h = torch.sigmoid(t[:, None] * a + self.b)  # (B, units)
        return t + h @ c, 1.0 + (h * (1.0 - h)) @ (a * c)
