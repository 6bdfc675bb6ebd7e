"""A transformer block, the ways in which its elements attend to each other, and what is kept while a sequence grows.

Layers normalise before attention and before the dense layers, and the weights that add to the residual stream start
smaller by the root of their number (Radford et al. 2019; Vaswani et al. 2017, 1706.03762). Who sees whom is no part of
a block: it is handed a function of queries, keys and values, or a cache that is called as one and that remembers.

Symbols: `B` sequences, `L` elements, `n` new elements, `w` width, `h` heads, `d` = w / h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITIAL_STD = 0.02
"""Of all weights (GPT-2)."""
EXPANSION = 4
"""Units of the dense layers for each of the width (Vaswani et al., Sec. 3.3)."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values, (B, h, L, d) each, to mixtures of values (B, h, L, d)."""


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every element sees itself and those before it."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def everything(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every element sees all elements."""
    return F.scaled_dot_product_attention(q, k, v)


class Masked:
    """Element i sees element j where `seen[i, j]` is true, (L, L) bool."""

    def __init__(self, seen: Tensor) -> None:
        self.seen = seen

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen)


class GrowingCache:
    """Keys and values of one layer; new elements see all that are there, themselves included.

    No work is done for elements to come, and shapes grow at every step: right where launching work costs little.

    Args:
        keys: (B, h, L, d), written in place.
        values: the same.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take in n elements, (B, h, n, d) each, and attend."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = k, v
        self.length = end
        return F.scaled_dot_product_attention(q, self.keys[:, :, :end], self.values[:, :, :end])

    def restart(self) -> None:
        """Forget all elements."""
        self.length = 0


class FixedCache:
    """The same with shapes and addresses that never change: a step can be compiled once, or recorded and replayed.

    Elements to come take part with weight 0.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys.zero_(), values.zero_()  # whatever lay there could be NaN, which 0 does not undo
        self.places = torch.arange(keys.shape[2], device=keys.device)
        self.length = torch.zeros(1, dtype=torch.int64, device=keys.device)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take in n elements, (B, h, n, d) each, and attend."""
        n = k.shape[2]
        new = self.length + self.places[:n]
        self.keys.index_copy_(2, new, k)
        self.values.index_copy_(2, new, v)
        self.length.add_(n)
        seen = (self.places < self.length).expand(n, -1)
        return F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=seen)

    def restart(self) -> None:
        """Forget all elements."""
        self.length.zero_()


Cache = GrowingCache | FixedCache
CacheKind = Literal["growing", "fixed"]


class Block(nn.Module):
    """Self-attention and two dense layers, each on normalised features and added to them.

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

    def forward(self, x: Tensor, attend: Attend = causal) -> Tensor:
        """Features of the shape of `x`: (B, L, w), or (B, n, w) of new elements where `attend` is a cache."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()  # (B, h, L, d) each
        x = x + self.dropout(self.out(attend(q, k, v).transpose(1, 2).flatten(2)))
        dense: Tensor = self.dropout(self.narrow(F.gelu(self.wide(self.norm2(x)))))
        return x + dense


def blocks_of(width: int, *, num_layers: int, num_heads: int, dropout: float) -> Sequence[Block]:
    """As many blocks as layers, in a module list.

    Raises:
        ValueError: the heads do not divide the width.
    """
    if width % num_heads:
        raise ValueError(f"a width of {width} does not split into {num_heads} heads")
    blocks = [Block(width, num_heads=num_heads, dropout=dropout, num_layers=num_layers) for _ in range(num_layers)]
    return cast("Sequence[Block]", nn.ModuleList(blocks))


def empty_caches(
    num_layers: int, *, num_samples: int, num_heads: int, length: int, like: Tensor, kind: CacheKind | None = None
) -> list[Cache]:
    """A cache without elements for each layer.

    Args:
        num_layers: how many.
        num_samples: B.
        num_heads: h.
        length: L, the most elements.
        like: (w,), a parameter of the network, for width, type and device.
        kind: None takes `fixed` on a GPU, where a step is short and its launch dear, and `growing` elsewhere.
    """
    wanted = kind if kind is not None else ("fixed" if like.is_cuda else "growing")
    make = FixedCache if wanted == "fixed" else GrowingCache
    shape = (num_samples, num_heads, length, like.shape[0] // num_heads)
    return [make(like.new_empty(shape), like.new_empty(shape)) for _ in range(num_layers)]
