"""A decoder-only transformer as a distribution over sequences of integers, such as the codes of an autoencoder.

Generative pre-training by attention to what came before (Radford et al. 2018, 2019; Vaswani et al. 2017, 1706.03762):
layers normalise before attention and before the dense layers, positions are learned, and the weights that add to the
residual stream start smaller by the root of their number. A learned vector stands before the first element.

Symbols: `B` sequences, `L` elements, `K` levels, `w` width, `h` heads, `d` = w / h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.nn._categorical_head import draw

INITIAL_STD = 0.02
"""Of all weights (GPT-2)."""
EXPANSION = 4
"""Units of the dense layers for each of the width (Vaswani et al., Sec. 3.3)."""


class Cache:
    """Keys and values of one layer for all elements so far: (B, h, L, d) each."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values once those of one more element, (B, h, 1, d) each, have joined."""
        self.keys[:, :, self.length], self.values[:, :, self.length] = k[:, :, 0], v[:, :, 0]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class Block(nn.Module):
    """Causal self-attention and two dense layers, each on normalised features and added to them.

    Args:
        width: w.
        num_heads: h, must divide the width.
        dropout: share of what either half adds that is dropped in training.
        num_layers: of the whole network, for the start of the weights.
    """

    def __init__(self, width: int, *, num_heads: int, dropout: float, num_layers: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, EXPANSION * width), nn.Linear(EXPANSION * width, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.qkv, self.out, self.wide, self.narrow):
            nn.init.normal_(layer.weight, std=INITIAL_STD)
            nn.init.zeros_(layer.bias)
        for layer in (self.out, self.narrow):  # 2 L additions to one stream
            layer.weight.data.mul_((2 * num_layers) ** -0.5)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Features of the shape of `x`: (B, L, w), or (B, 1, w) of the next element where there is a cache."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()  # (B, h, L, d) each
        if cache is not None:
            k, v = cache.extended(k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(mixed))
        dense: Tensor = self.dropout(self.narrow(F.gelu(self.wide(self.norm2(x)))))
        return x + dense


class CausalTransformer(nn.Module):
    """p(codes) = prod_i p(code_i | codes before i), each factor a softmax over all levels.

    Args:
        num_levels: K; codes run over 0 .. K-1.
        length: L, of every sequence.
        width: w; `num_heads` must divide it.
        num_layers: blocks.
        num_heads: h.
        dropout: share of features dropped in training, see `Block`.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self, *, num_levels: int, length: int, width: int, num_layers: int, num_heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"a width of {width} does not split into {num_heads} heads")
        self.num_levels, self.length = num_levels, length
        self.start = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.embedding = nn.Embedding(num_levels, width)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        self.positions = nn.Parameter(torch.randn(length, width) * INITIAL_STD)
        self.dropout = nn.Dropout(dropout)
        blocks = [Block(width, num_heads=num_heads, dropout=dropout, num_layers=num_layers) for _ in range(num_layers)]
        self.blocks = cast("Sequence[Block]", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_levels, bias=False)
        nn.init.normal_(self.head.weight, std=INITIAL_STD)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of every element given those before it: (B, L, K) for codes (B, L) int64."""
        before = self.start.expand(len(codes), 1, -1)
        x = self.dropout(torch.cat([before, self.embedding(codes[:, :-1])], dim=1) + self.positions)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of codes (B, L): (B,) nats."""
        nats = F.cross_entropy(self(codes).float().transpose(1, 2), codes, reduction="none")
        return -nats.sum(1)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator, top_k: int = 0) -> Tensor:
        """Draw (N, L) int64; keys and values are computed once for every element.

        Args:
            num_samples: N.
            generator: one uniform number is drawn for each element.
            top_k: draw among the most probable levels only; 0 for all, which is the model itself.
        """
        device = self.start.device
        uniforms = torch.rand(num_samples, self.length, generator=generator, device=device)
        codes = torch.zeros(num_samples, self.length, dtype=torch.int64, device=device)
        caches = [self._empty(block, num_samples) for block in self.blocks]
        x = self.start.expand(num_samples, -1)
        for i in range(self.length):
            h = (x + self.positions[i])[:, None]
            for block, cache in zip(self.blocks, caches, strict=True):
                h = block(h, cache)
            logits = self.head(self.norm(h))[:, 0].float()
            codes[:, i] = draw(most_probable(logits, top_k), uniforms[:, i])
            x = self.embedding(codes[:, i])
        return codes

    def _empty(self, block: Block, num_samples: int) -> Cache:
        shape = (num_samples, block.num_heads, self.length, self.start.shape[0] // block.num_heads)
        return Cache(self.start.new_empty(shape), self.start.new_empty(shape))


def most_probable(logits: Tensor, top_k: int) -> Tensor:
    """Logits (N, K) with all but the `top_k` largest of each row at minus infinity; 0 leaves them as they are."""
    if not 0 < top_k < logits.shape[1]:
        return logits
    least = logits.topk(top_k, dim=1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)
