"""A residual network of vectors that starts at zero: what moves the halves of couplings of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class DenseBlock(nn.Module):
    """h + W2 relu(W1 relu(h)), with dropout before the last layer.

    Args:
        width: of h, and of the layer between.
        dropout: share of features dropped in training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) to the same shape."""
        change: Tensor = self.second(self.dropout(F.relu(self.first(F.relu(h)))))
        return h + change


class DenseResidualNet(nn.Module):
    """Map (B, in_dim) to (B, out_dim); 0 at its start (Durkan et al. 2019, arXiv:1906.04032, Appendix B).

    Args:
        in_dim: of the input.
        out_dim: of the result.
        width: of every layer.
        num_blocks: residual blocks of two layers.
        dropout: share of features dropped in each block, in training.
    """

    def __init__(self, in_dim: int, out_dim: int, *, width: int, num_blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Linear(in_dim, width)
        self.blocks = cast("Sequence[DenseBlock]", nn.ModuleList(DenseBlock(width, dropout) for _ in range(num_blocks)))
        self.head = nn.Linear(width, out_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(F.relu(h))
        return out
