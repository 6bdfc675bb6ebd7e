"""A small flow of affine couplings over flat vectors, there and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genbench.nn.actnorm import ActNorm
from genbench.nn.bijection import Bijection
from genbench.nn.coupling import AffineCoupling


class VectorFlow(Bijection):
    """Affine couplings on every other coordinate in turn, each behind an actnorm (Dinh et al. 2016, arXiv:1605.08803).

    Args:
        num_dims: D of a vector, at least 2.
        width: of the hidden layers of the conditioners.
        num_couplings: at least 2, for every coordinate to change.
    """

    def __init__(self, num_dims: int, *, width: int, num_couplings: int) -> None:
        super().__init__()
        parity = torch.arange(num_dims) % 2
        couplings = [
            AffineCoupling((parity == k % 2).float(), num_dims, _conditioner(num_dims, width))
            for k in range(num_couplings)
        ]
        self.couplings = cast("Sequence[AffineCoupling]", nn.ModuleList(couplings))
        self.norms = cast("Sequence[ActNorm]", nn.ModuleList([ActNorm(num_dims) for _ in range(num_couplings)]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of vectors and the log-determinant of each: (B, D) to (B, D) and (B,)."""
        log_det = x.new_zeros(len(x))
        for norm, coupling in zip(self.norms, self.couplings, strict=True):
            x, norm_log_det = norm(x)
            x, coupling_log_det = coupling(x)
            log_det = log_det + norm_log_det + coupling_log_det
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        """Vectors (B, D) whose latents are `y`."""
        for norm, coupling in zip(reversed(self.norms), reversed(self.couplings), strict=True):
            y = norm.inverse(coupling.inverse(y))
        return y

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Start every actnorm from the statistics of vectors (B, D); their latents."""
        for norm, coupling in zip(self.norms, self.couplings, strict=True):
            norm.initialise(x)
            x = coupling(norm(x)[0])[0]
        return x


def _conditioner(num_dims: int, width: int) -> nn.Sequential:
    """Raw log-scale and shift of the coordinates, 0 at the start: (B, D) to (B, 2 D)."""
    last = nn.Linear(width, 2 * num_dims)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(num_dims, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)
