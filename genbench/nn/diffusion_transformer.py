"""A transformer over patches of a noised image, conditioned by adaptive normalisation (DiT).

Peebles and Xie 2023 (2212.09748), Sec. 3.2: patches become tokens with fixed sinusoidal places; every block normalises
without weights of its own, and scales, shifts and gates come from the embedded time and condition, from zero, so that a
block starts as the identity (adaLN-Zero); a last such normalisation and a linear layer, also from zero, give patches
back.

Symbols: `B` images, `L` tokens, `w` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn.embedding import TimeEmbedding, sinusoidal
from genbench.nn.transformer import Attend, everything

EXPANSION = 4
"""Units of the dense layers for each of the width."""
TIME_WAVES = 256
"""Length of the sinusoidal embedding of times."""
EPSILON = 1e-6
"""Of the normalisations."""
INITIAL_STD = 0.02
"""Of the weights of the embedding of times."""


class Modulation(nn.Module):
    """Embeddings (B, w) to `number` vectors (B, 1, w) each; all zero at the start."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.number = number
        self.linear = nn.Linear(width, number * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """Apply to activated embeddings."""
        vectors: Tensor = self.linear(F.silu(embedding))
        return vectors[:, None].chunk(self.number, dim=2)


class Block(nn.Module):
    """Self-attention and two dense layers, each modulated and gated by the embedding.

    Args:
        width: w.
        num_heads: must divide the width.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=EPSILON)
        self.qkv, self.out = _linear(width, 3 * width), _linear(width, width)
        self.wide, self.narrow = _linear(width, EXPANSION * width), _linear(EXPANSION * width, width)
        self.modulation = Modulation(width, 6)

    def forward(self, x: Tensor, embedding: Tensor, attend: Attend = everything) -> Tensor:
        """Map tokens (B, L, w) given embeddings (B, w); `attend` says who sees whom."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)
        x = x + gate1 * self._attend(modulated(self.norm(x), shift1, scale1), attend)
        dense = self.narrow(F.gelu(self.wide(modulated(self.norm(x), shift2, scale2)), approximate="tanh"))
        out: Tensor = x + gate2 * dense
        return out

    def _attend(self, x: Tensor, attend: Attend = everything) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        mixed: Tensor = self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class DiffusionTransformer(nn.Module):
    """Map noised images (B, in_channels, H, W) and times (B,) to (B, out_channels, H, W).

    Args:
        in_channels: channels of the images.
        out_channels: channels of the result.
        resolution: H = W; `patch` must divide it.
        patch: side of the squares of pixels that are tokens.
        width: w; `num_heads` must divide it, and so must 4.
        num_layers: blocks.
        num_heads: of each attention.

    Raises:
        ValueError: patches do not tile the image, or heads do not split the width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resolution: int,
        patch: int,
        width: int,
        num_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        if resolution % patch:
            raise ValueError(f"patches of {patch} px do not tile {resolution} px")
        if width % num_heads or width % 4:
            raise ValueError(f"a width of {width} does not split into {num_heads} heads and four kinds of waves")
        self.patch, self.embedding_dim = patch, width
        self.side = resolution // patch
        self.embed = TimeEmbedding(TIME_WAVES, width)
        for layer in (self.embed.hidden, self.embed.out):
            nn.init.normal_(layer.weight, std=INITIAL_STD)
        self.stem = _linear(in_channels * patch**2, width)
        self.register_buffer("places", places(self.side, width), persistent=False)
        self.places: Tensor
        blocks = [Block(width, num_heads=num_heads) for _ in range(num_layers)]
        self.blocks = cast("Sequence[Block]", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=EPSILON)
        self.modulation = Modulation(width, 2)
        self.out = nn.Linear(width, out_channels * patch**2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (B, in_channels, H, W) float.
            t: (B,) times; `nn.embedding.sinusoidal` says on which scale.
            condition: (B, w), added to the time embedding.
        """
        embedding = self.embed(t)
        embedding = embedding if condition is None else embedding + condition
        h = self.stem(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)) + self.places  # (B, L, w)
        for block in self.blocks:
            h = block(h, embedding)
        patches: Tensor = self.out(modulated(self.norm(h), *self.modulation(embedding)))
        return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (self.side, self.side)), self.patch)


def places(side: int, width: int) -> Tensor:
    """Fixed embeddings of the places of a grid in raster order: (side^2, width), one half for rows, one for columns."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.cat([sinusoidal(axis.flatten(), width // 2) for axis in (row, column)], dim=1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalised features scaled by 1 + `scale` and shifted."""
    return x * (1.0 + scale) + shift


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
