"""A transformer that sees a whole sequence of which some elements are hidden, and says what the hidden ones are.

Masked modelling with attention in both directions (Devlin et al. 2018, 1810.04805): hidden elements have a learned
vector of their own, positions are learned, and logits are products with the vectors of the levels. What the sequences
depend on is one more element in front.

Symbols: `B` sequences, `L` elements, `K` levels, `w` width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn.transformer import INITIAL_STD, blocks_of, everything


class MaskedTransformer(nn.Module):
    """Logits of every element of codes in which K stands for a hidden one.

    Args:
        num_levels: K; codes run over 0 .. K-1.
        length: L.
        width: w; `num_heads` must divide it.
        num_layers: blocks.
        num_heads: of each.
        dropout: share of features dropped in training, see `Block`.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self, *, num_levels: int, length: int, width: int, num_layers: int, num_heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_levels, self.length = num_levels, length
        self.embedding = nn.Embedding(num_levels + 1, width)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        self.positions = nn.Parameter(torch.randn(length, width) * INITIAL_STD)
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks_of(width, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
        self.norm = nn.LayerNorm(width)
        self.hidden, self.hidden_norm = nn.Linear(width, width), nn.LayerNorm(width)
        nn.init.normal_(self.hidden.weight, std=INITIAL_STD)
        nn.init.zeros_(self.hidden.bias)
        self.bias = nn.Parameter(torch.zeros(num_levels))

    @property
    def mask(self) -> int:
        """What stands for a hidden element, K."""
        return self.num_levels

    def forward(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Logits of every element, hidden or not: (B, L, K) float32.

        Args:
            codes: (B, L) int64, 0 .. K.
            told: (B, w), what the sequences depend on; None for nothing.
        """
        x = self.embedding(codes) + self.positions
        x = self.dropout(x if told is None else torch.cat([told[:, None], x], dim=1))
        for block in self.blocks:
            x = block(x, everything)
        x = self.norm(x[:, -self.length :])
        features = self.hidden_norm(F.gelu(self.hidden(x)))
        return F.linear(features, self.embedding.weight[: self.num_levels], self.bias).float()
