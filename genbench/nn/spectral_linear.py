"""A linear layer whose spectral norm stays where it started (improved spectral normalisation).

Lee et al. 2021 (2107.04589): dividing a weight by its largest singular value sigma(W), as spectral
normalisation does (Miyato et al. 2018, 1802.05957), leaves a transformer too little slope to learn by, so the norm
that the weight had at the start is put back:  W  ->  sigma(W_0) W / sigma(W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_ITERATIONS = 30
"""Of the power iteration at the start, from a random vector; one follows in every pass of training."""


class SpectralLinear(nn.Module):
    """(..., in) to (..., out) by a weight of the spectral norm that it had at the start.

    sigma(W) = u^T W v with u and v from a power iteration, which takes one more step in every pass of training and none
    in evaluation. Gradients pass through W and not through u and v.

    Args:
        inputs: in.
        outputs: out.
        bias: whether a constant is added.
    """

    u: Tensor
    first_norm: Tensor

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("first_norm", torch.linalg.matrix_norm(self.weight.detach(), 2))
        with torch.no_grad():
            for _ in range(FIRST_ITERATIONS):
                self._iterate()

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        return F.linear(x, self.normalised(), self.bias)

    def normalised(self) -> Tensor:
        """The weight in use: (out, in)."""
        with torch.no_grad():
            if self.training:
                self._iterate()
            u = self.u.clone()  # later passes move it in place
            v = F.normalize(u @ self.weight, dim=0)
        sigma = u @ self.weight @ v
        return self.weight * (self.first_norm / sigma)

    def _iterate(self) -> None:
        v = F.normalize(self.u @ self.weight, dim=0)
        self.u.copy_(F.normalize(self.weight @ v, dim=0))
