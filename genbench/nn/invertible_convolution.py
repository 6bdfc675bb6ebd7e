"""Invertible 1x1 convolution: a learned mixture of channels whose determinant costs nothing.

Kingma, Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, Sec. 3.2:

    y = W x at every position,    W = P L (U + diag(s)),    log |det W| = sum_i log |s_i|        (Eq. 10, 11)

with `P` a fixed permutation, `L` lower triangular with ones on its diagonal, `U` strictly upper triangular.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn.bijection import Bijection


class InvertibleConvolution(Bijection):
    """One square matrix for all positions of (B, C, H, W), or for vectors (B, C).

    Args:
        num_channels: C.
        start: `rotation`, a random one (Glow), or `permutation`, a random one (neural spline flows).
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, num_channels: int, *, start: Literal["rotation", "permutation"] = "rotation") -> None:
        super().__init__()
        if start == "rotation":
            initial = torch.linalg.qr(torch.randn(num_channels, num_channels)).Q
        else:
            initial = torch.eye(num_channels)[torch.randperm(num_channels)]
        permutation, lower, upper = torch.linalg.lu(initial)
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", upper.diagonal().sign())
        self.triangles = nn.Parameter(lower.tril(-1) + upper.triu(1))  # L below, U above the diagonal
        self.log_scale = nn.Parameter(upper.diagonal().abs().log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed channels of the shape of `x`, and the log-determinant (), a sum over positions."""
        lower, upper = self._factors(self.triangles, self.log_scale)
        num_positions = x[0].numel() // len(self.signs)
        with torch.autocast(x.device.type, enabled=False):  # data in half precision are another law's
            return _mixed(x, self.permutation @ lower @ upper), self.log_scale.sum() * num_positions

    def inverse(self, y: Tensor) -> Tensor:
        """By two triangular systems in double precision, whatever the weights have; carries gradients."""
        lower, upper = self._factors(self.triangles.double(), self.log_scale.double())
        half = torch.linalg.solve_triangular(lower, self.permutation.double().T, upper=False, unitriangular=True)
        return _mixed(y, torch.linalg.solve_triangular(upper, half, upper=True).to(y.dtype))

    def _factors(self, triangles: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """L and U + diag(s): (C, C) each."""
        ones = torch.ones_like(log_scale)
        return triangles.tril(-1) + ones.diag(), triangles.triu(1) + (self.signs * log_scale.exp()).diag()


def _mixed(x: Tensor, weight: Tensor) -> Tensor:
    """`weight` (C, C) at every position of (B, C) or (B, C, H, W)."""
    return F.linear(x, weight) if x.ndim == 2 else F.conv2d(x, weight[:, :, None, None])
