"""A transformer over patches with a smaller one inside of each: a distribution over images as sequences of integers.

The outer transformer runs over patches, each given those before it; what it says of the next patch is told to the inner
one, which runs over the sub-pixels of that patch alone (Yu et al. 2023, 2305.07185, MEGABYTE). The product of both is
an exact probability, at the attention of T and M elements in place of T M.

Symbols: `B` sequences, `T` patches, `M` sub-pixels of a patch, `K` levels, `F` features of a level, `w` width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.nn._categorical_head import categorical_log_prob, categorical_nll
from genbench.nn.causal_transformer import CausalTransformer
from genbench.nn.gated_pixelcnn import OrderedLevels
from genbench.nn.transformer import INITIAL_STD, Cache, CacheKind, blocks_of, empty_caches


class PatchTransformer(nn.Module):
    """p(codes) = prod over patches, and over the ordered levels within each, of a softmax over all levels.

    Args:
        num_levels: K; levels run over 0 .. K-1.
        num_patches: T.
        patch_size: M.
        width: w of the outer transformer; `num_heads` must divide it.
        num_layers: outer blocks.
        num_heads: of each.
        inner_width: of the inner transformer; `inner_heads` must divide it.
        inner_layers: inner blocks; none make the sub-pixels of a patch independent but for their neighbour before.
        inner_heads: of each.
        dropout: share of features dropped in training, see `Block`.

    Raises:
        ValueError: heads do not divide their width.
    """

    def __init__(
        self,
        *,
        num_levels: int,
        num_patches: int,
        patch_size: int,
        width: int,
        num_layers: int,
        num_heads: int,
        inner_width: int,
        inner_layers: int,
        inner_heads: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_patches, self.patch_size, self.num_heads = num_patches, patch_size, num_heads
        self.start = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.levels = OrderedLevels(num_levels)
        self.patches = nn.Linear(patch_size * self.levels.table.shape[1], width, bias=False)
        nn.init.normal_(self.patches.weight, std=INITIAL_STD * patch_size**-0.5)
        self.positions = nn.Parameter(torch.randn(num_patches, width) * INITIAL_STD)
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks_of(width, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
        self.norm = nn.LayerNorm(width)
        self.tell = nn.Linear(width, inner_width)
        nn.init.normal_(self.tell.weight, std=INITIAL_STD)
        self.inner = CausalTransformer(
            num_levels=num_levels,
            length=patch_size,
            width=inner_width,
            num_layers=inner_layers,
            num_heads=inner_heads,
            dropout=dropout,
            inputs="ordered",
        )

    def forward(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Logits of every sub-pixel given those before it: (B, T, M, K).

        Args:
            codes: (B, T, M) int64.
            told: (B, w), what the images depend on; None for nothing.
        """
        logits: Tensor = self.inner(codes.flatten(0, 1), self._contexts(codes, told).flatten(0, 1))
        split: Tensor = logits.unflatten(0, codes.shape[:2])
        return split

    def log_prob(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Log-probability of codes (B, T, M): (B,) nats."""
        picked = categorical_log_prob(*self._inner_arguments(codes, told))
        return picked.view(len(codes), -1).sum(1, dtype=torch.float64).to(picked.dtype)

    def mean_nll(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Mean over the levels in codes (B, T, M) of minus their log-probability: a scalar; cheap to differentiate."""
        return categorical_nll(*self._inner_arguments(codes, told)) / codes.numel()

    @torch.no_grad()
    def sample(
        self, num_samples: int, *, generator: Generator, told: Tensor | None = None, cache: CacheKind | None = None
    ) -> Tensor:
        """Draw (N, T, M) int64; keys and values are computed once for every patch and every sub-pixel.

        Args:
            num_samples: N.
            generator: one uniform number is drawn for each sub-pixel.
            told: (N, w), what each image depends on.
            cache: how keys and values are kept; None goes by the device.
        """
        device = self.start.device
        uniforms = torch.rand(num_samples, self.num_patches, self.patch_size, generator=generator, device=device)
        codes = torch.zeros(uniforms.shape, dtype=torch.int64, device=device)
        caches, inner = self._empty_caches(num_samples, cache), self.inner.empty_caches(num_samples, cache)
        x = self.start.repeat(num_samples, 1)
        for t in torch.arange(self.num_patches, device=device).split(1):
            h = (x + self.positions.index_select(0, t))[:, None]
            h = h if told is None else h + told[:, None]
            for block, kept in zip(self.blocks, caches, strict=True):
                h = block(h, kept)
            for kept in inner:
                kept.restart()
            patch = self.inner.drawn(uniforms.index_select(1, t)[:, 0], inner, told=self.tell(self.norm(h))[:, 0])
            codes.index_copy_(1, t, patch[:, None])
            x = self._embedded(patch)
        return codes

    def _inner_arguments(self, codes: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.inner.head_arguments(codes.flatten(0, 1), self._contexts(codes, told).flatten(0, 1))

    def _contexts(self, codes: Tensor, told: Tensor | None) -> Tensor:
        """What is told to the inner transformer of each patch given those before it: (B, T, inner width)."""
        before = self.start.expand(len(codes), 1, -1)
        x = torch.cat([before, self._embedded(codes[:, :-1])], dim=1) + self.positions
        x = self.dropout(x if told is None else x + told[:, None])
        for block in self.blocks:
            x = block(x)
        contexts: Tensor = self.tell(self.norm(x))
        return contexts

    def _embedded(self, codes: Tensor) -> Tensor:
        """Vectors of patches (..., M): (..., w)."""
        vectors: Tensor = self.patches(F.embedding(codes, self.levels.table).flatten(-2))
        return vectors

    def _empty_caches(self, num_samples: int, kind: CacheKind | None) -> list[Cache]:
        return empty_caches(
            len(self.blocks),
            num_samples=num_samples,
            num_heads=self.num_heads,
            length=self.num_patches,
            like=self.start,
            kind=kind,
        )
