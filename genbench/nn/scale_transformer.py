"""A transformer over grids from coarse to fine: all codes of a scale at once, given those of the scales before it.

Tian et al. 2024 (2404.02905), Sec. 3.2 and 3.3: elements of a scale enter as what the scales before it make of the
image at the scale's own size; each sees all elements of its own and of earlier scales. What images depend on is the
first element, and scales and shifts every normalisation.

Symbols: `B` images, `L` elements on all scales, `s_k` sides, `D` dimensions of the inputs, `K` levels, `w` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genbench.nn.diffusion_transformer import EPSILON, Block, Modulation, modulated
from genbench.nn.transformer import INITIAL_STD, Attend, Cache, CacheKind, Masked, empty_caches


class ScaleTransformer(nn.Module):
    """p(codes) = prod_k prod_i p(code_(k,i) | codes of scales before k), each factor a softmax over all levels.

    Args:
        num_levels: K; codes run over 0 .. K-1.
        input_dim: D.
        sides: s_k, rising from 1.
        width: w; `num_heads` must divide it.
        num_layers: blocks.
        num_heads: of each.

    Raises:
        ValueError: the first grid has more than one place, or the heads do not divide the width.
    """

    seen: Tensor
    scales: Tensor

    def __init__(
        self, *, num_levels: int, input_dim: int, sides: Sequence[int], width: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        if sides[0] != 1:
            raise ValueError(f"the coarsest grid is one place, found a side of {sides[0]}")
        if width % num_heads:
            raise ValueError(f"a width of {width} does not split into {num_heads} heads")
        self.num_levels, self.num_heads, self.sides = num_levels, num_heads, tuple(sides)
        scales = torch.cat([torch.full((side**2,), k) for k, side in enumerate(sides)])
        self.register_buffer("scales", scales, persistent=False)  # (L,)
        self.register_buffer("seen", scales[:, None] >= scales, persistent=False)  # (L, L)
        self.start = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.inputs = nn.Linear(input_dim, width)
        self.positions = nn.Parameter(torch.randn(len(scales), width) * INITIAL_STD)
        self.of_scale = nn.Embedding(len(sides), width)
        nn.init.normal_(self.of_scale.weight, std=INITIAL_STD)
        blocks = [Block(width, num_heads=num_heads) for _ in range(num_layers)]
        self.blocks = cast("Sequence[Block]", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=EPSILON)
        self.modulation = Modulation(width, 2)
        self.head = nn.Linear(width, num_levels)
        nn.init.normal_(self.head.weight, std=INITIAL_STD)
        nn.init.zeros_(self.head.bias)

    @property
    def length(self) -> int:
        """Elements on all scales together, L."""
        return len(self.scales)

    def forward(
        self, inputs: Tensor, told: Tensor | None = None, *, begin: int = 0, caches: Sequence[Cache] | None = None
    ) -> Tensor:
        """Logits of consecutive elements given all scales before theirs: (B, n, K) float32.

        Args:
            inputs: (B, n, D), of the elements from `begin` on; without the first of all, which has none.
            told: (B, w), what the images depend on; None for nothing.
            begin: place of the first element.
            caches: of the elements before `begin`, where the new ones are a whole scale; None where all are there.
        """
        embedding = self.start.expand(len(inputs), -1) if told is None else self.start + told
        x = self.inputs(inputs)
        x = torch.cat([embedding[:, None], x], dim=1) if begin == 0 else x
        places = slice(begin, begin + x.shape[1])
        x = x + self.positions[places] + self.of_scale(self.scales[places])
        attends: Sequence[Attend] = [Masked(self.seen)] * len(self.blocks) if caches is None else caches
        for block, attend in zip(self.blocks, attends, strict=True):
            x = block(x, embedding, attend)
        logits: Tensor = self.head(modulated(self.norm(x), *self.modulation(embedding)))
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
