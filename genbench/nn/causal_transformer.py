"""A decoder-only transformer as a distribution over sequences of integers, such as the codes of an autoencoder.

Generative pre-training by attention to what came before (Radford et al. 2018, 2019; Vaswani et al. 2017, 1706.03762),
in the blocks of `genbench.nn.transformer`: positions are learned, and a learned vector stands before the first element.
What the sequences depend on is a vector that is added to every element.

Symbols: `B` sequences, `L` elements, `K` levels, `w` width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.nn._categorical_head import categorical_nll, draw
from genbench.nn.gated_pixelcnn import OrderedLevels
from genbench.nn.transformer import INITIAL_STD, Cache, CacheKind, blocks_of, empty_caches


class OrderedEmbedding(nn.Module):
    """Vectors of ordered levels, linear in fixed waves of the level, so that levels near each other begin alike.

    Args:
        num_levels: K.
        width: of the vectors.
    """

    def __init__(self, num_levels: int, width: int) -> None:
        super().__init__()
        self.levels = OrderedLevels(num_levels)
        self.mix = nn.Linear(self.levels.table.shape[1], width, bias=False)  # the waves hold a constant
        nn.init.normal_(self.mix.weight, std=INITIAL_STD)

    @property
    def weight(self) -> Tensor:
        """The vectors of all levels, (K, w)."""
        table: Tensor = self.mix(self.levels.table)
        return table

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors of levels of any shape: one dimension more."""
        return F.embedding(codes, self.weight)


class CausalTransformer(nn.Module):
    """p(codes) = prod_i p(code_i | codes before i), each factor a softmax over all levels.

    Args:
        num_levels: K; codes run over 0 .. K-1.
        length: L, of every sequence.
        width: w; `num_heads` must divide it.
        num_layers: blocks.
        num_heads: h.
        dropout: share of features dropped in training, see `Block`.
        inputs: `ordered` for pixels; `categorical` for codes whose numbers mean nothing.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self,
        *,
        num_levels: int,
        length: int,
        width: int,
        num_layers: int,
        num_heads: int,
        dropout: float = 0.0,
        inputs: Literal["ordered", "categorical"] = "categorical",
    ) -> None:
        super().__init__()
        self.num_levels, self.length, self.num_heads = num_levels, length, num_heads
        self.start = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.embedding: nn.Embedding | OrderedEmbedding
        if inputs == "ordered":
            self.embedding = OrderedEmbedding(num_levels, width)
        else:
            self.embedding = nn.Embedding(num_levels, width)
            nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        self.positions = nn.Parameter(torch.randn(length, width) * INITIAL_STD)
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks_of(width, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_levels, bias=False)
        nn.init.normal_(self.head.weight, std=INITIAL_STD)
        if inputs == "ordered":  # levels that look alike start with like logits
            self.head.weight.data = OrderedEmbedding(num_levels, width).weight.detach().clone()

    def forward(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Logits of every element given those before it: (B, L, K).

        Args:
            codes: (B, L) int64.
            told: (B, w), what the sequences depend on; None for nothing.
        """
        logits: Tensor = self.head(self._features(codes, told))
        return logits

    def log_prob(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Log-probability of codes (B, L): (B,) nats."""
        nats = F.cross_entropy(self(codes, told).float().transpose(1, 2), codes, reduction="none")
        return -nats.sum(1)

    def mean_nll(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Mean over the elements of codes (B, L) of minus their log-probability: a scalar; cheap to differentiate."""
        return categorical_nll(*self.head_arguments(codes, told)) / codes.numel()

    def head_arguments(self, codes: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `categorical_nll` and `categorical_log_prob` take for codes (B, L), a row for each element."""
        features = self._features(codes, told).flatten(0, 1).unsqueeze(1)  # (B*L, 1, w)
        weight = self.head.weight.unsqueeze(0)
        return features, weight, weight.new_zeros(weight.shape[:2]), codes.reshape(-1, 1)

    def _features(self, codes: Tensor, told: Tensor | None) -> Tensor:
        """What logits are linear in: (B, L, w)."""
        before = self.start.expand(len(codes), 1, -1)
        x = torch.cat([before, self.embedding(codes[:, :-1])], dim=1) + self.positions
        x = self.dropout(x if told is None else x + told[:, None])
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x)
        return features

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        generator: Generator,
        top_k: int = 0,
        told: Tensor | None = None,
        cache: CacheKind | None = None,
    ) -> Tensor:
        """Draw (N, L) int64; keys and values are computed once for every element.

        Args:
            num_samples: N.
            generator: one uniform number is drawn for each element.
            top_k: draw among the most probable levels only; 0 for all, which is the model itself.
            told: (N, w), what each sequence depends on.
            cache: how keys and values are kept; None goes by the device.
        """
        uniforms = torch.rand(num_samples, self.length, generator=generator, device=self.start.device)
        return self.drawn(uniforms, self.empty_caches(num_samples, cache), top_k=top_k, told=told)

    @torch.no_grad()
    def drawn(self, uniforms: Tensor, caches: list[Cache], *, top_k: int = 0, told: Tensor | None = None) -> Tensor:
        """Invert the distribution at uniforms (N, L), with caches without elements: (N, L) int64."""
        codes = torch.zeros(uniforms.shape, dtype=torch.int64, device=uniforms.device)
        x = self.start.repeat(len(codes), 1)
        for i in torch.arange(self.length, device=uniforms.device).split(1):
            logits = most_probable(self.next_logits(x, i, caches, told=told), top_k)
            chosen = draw(logits, uniforms.index_select(1, i)[:, 0])
            codes.index_copy_(1, i, chosen[:, None])
            x = self.embedding(chosen)
        return codes

    def next_logits(self, x: Tensor, place: Tensor, caches: list[Cache], *, told: Tensor | None = None) -> Tensor:
        """Logits (N, K) of one element, float32; what it takes has the same shape at every place.

        Args:
            x: (N, w), the vector of the element before it.
            place: (1,) int64, its place.
            caches: of the elements before it; they take in one more.
            told: (N, w).
        """
        h = (x + self.positions.index_select(0, place))[:, None]
        h = h if told is None else h + told[:, None]
        for block, cache in zip(self.blocks, caches, strict=True):
            h = block(h, cache)
        logits: Tensor = self.head(self.norm(h))[:, 0]
        return logits.float()

    def empty_caches(self, num_samples: int, kind: CacheKind | None = None) -> list[Cache]:
        """Keys and values of no elements yet; None goes by the device."""
        return empty_caches(
            len(self.blocks),
            num_samples=num_samples,
            num_heads=self.num_heads,
            length=self.length,
            like=self.start,
            kind=kind,
        )


def most_probable(logits: Tensor, top_k: int) -> Tensor:
    """Logits (N, K) with all but the `top_k` largest of each row at minus infinity; 0 leaves them as they are."""
    if not 0 < top_k < logits.shape[1]:
        return logits
    least = logits.topk(top_k, dim=1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)
