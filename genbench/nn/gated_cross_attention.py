"""What Flamingo puts around and between frozen networks: a perceiver resampler, and gated cross-attention.

Alayrac et al. 2022 (2204.14198). The resampler (Sec. 2.1) turns the features of any number of places into a few latent
vectors, which attend to the places and to each other. A gated layer (Sec. 2.2, Fig. 4) lets words attend to these:

    y  = y + tanh(alpha) attention(q = y, k = v = latents)
    y  = y + tanh(beta) dense(y)

with alpha = beta = 0 at the start, where it is the identity to the last bit.

Symbols: `B` sequences, `L` words, `M` pictures, `R` latents of each, `w` width of words, `v` width of latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4
"""Units of the dense layers for each of the width."""
INITIAL_STD = 0.02
"""Of latents and places."""


class Attention(nn.Module):
    """Vectors (B, L, w) that ask vectors (B, S, v), linear without biases.

    Args:
        width: w.
        asked_width: v.
        num_heads: must divide the width.
    """

    def __init__(self, width: int, asked_width: int, *, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"a width of {width} does not split into {num_heads} heads")
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(asked_width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, asked: Tensor, seen: Tensor | None = None) -> Tensor:
        """Mixtures of what is asked: (B, L, w).

        Args:
            x: (B, L, w).
            asked: (B, S, v).
            seen: (B, L, S) bool, what each of x sees; a row without any gives zeros. None: everything.
        """
        q = self._heads(self.query(x))
        k, v = (self._heads(part) for part in self.key_value(asked).chunk(2, dim=2))
        if seen is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            some = seen.any(2, keepdim=True)
            mask = (seen | ~some)[:, None]  # a softmax over nothing is NaN, also in what is multiplied by zero
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask) * some[:, None]
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, w) to (B, heads, L, w / heads)."""
        split: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return split


def dense(width: int) -> nn.Sequential:
    """Normalisation and two dense layers with a squared ReLU between them (App. A)."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, EXPANSION * width, bias=False),
        SquaredReLU(),
        nn.Linear(EXPANSION * width, width, bias=False),
    )


class SquaredReLU(nn.Module):
    """max(x, 0)^2 (So et al. 2021, 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to any shape."""
        return F.relu(x).square()


class ResamplerLayer(nn.Module):
    """Latents that attend to places and to themselves, then dense layers, each added."""

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.places_norm, self.latents_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width, num_heads=num_heads)
        self.dense = dense(width)

    def forward(self, latents: Tensor, places: Tensor) -> Tensor:
        """Latents (N, R, v) after the layer, of pictures with places (N, P, v)."""
        own = self.latents_norm(latents)
        latents = latents + self.attention(own, torch.cat([self.places_norm(places), own], dim=1))
        return latents + cast("Tensor", self.dense(latents))


class PerceiverResampler(nn.Module):
    """Features of places (N, v, rows, columns) to latents (N, R, v).

    Args:
        grid_shape: v, rows and columns.
        num_latents: R.
        num_layers: of the resampler.
        num_heads: must divide v.
    """

    def __init__(self, grid_shape: tuple[int, int, int], *, num_latents: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        width, rows, columns = grid_shape
        self.places = nn.Parameter(torch.randn(rows * columns, width) * INITIAL_STD)
        self.latents = nn.Parameter(torch.randn(num_latents, width) * INITIAL_STD)
        layers = [ResamplerLayer(width, num_heads=num_heads) for _ in range(num_layers)]
        self.layers = cast("Sequence[ResamplerLayer]", nn.ModuleList(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, grid: Tensor) -> Tensor:
        """Latents of pictures: (N, R, v)."""
        places = grid.flatten(2).transpose(1, 2) + self.places  # (N, P, v)
        latents = self.latents.expand(len(grid), -1, -1)
        for layer in self.layers:
            latents = layer(latents, places)
        normalised: Tensor = self.norm(latents)
        return normalised


class GatedCrossAttention(nn.Module):
    """Words that ask the latents of pictures, and dense layers, each behind a gate that is shut at the start.

    Args:
        width: w.
        latent_width: v.
        num_heads: must divide w.
    """

    def __init__(self, width: int, latent_width: int, *, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, latent_width, num_heads=num_heads)
        self.dense = dense(width)
        self.attention_gate = nn.Parameter(torch.zeros(()))  # alpha
        self.dense_gate = nn.Parameter(torch.zeros(()))  # beta

    def forward(self, y: Tensor, latents: Tensor, seen: Tensor) -> Tensor:
        """Words (B, L, w) after the layer, given latents (B, M * R, v) and what each word sees (B, L, M * R) bool."""
        y = y + self.attention_gate.tanh() * self.attention(self.norm(y), latents, seen)
        return y + self.dense_gate.tanh() * cast("Tensor", self.dense(y))


def last_picture(marks: Tensor, num_pictures: int, num_latents: int, *, before: Tensor | None = None) -> Tensor:
    """Which latents each element sees: those of the last picture at or before it (Sec. 2.3): (B, L, M * R) bool.

    Args:
        marks: (B, L) bool, where a picture stands; the first mark is that of the first picture.
        num_pictures: M.
        num_latents: R.
        before: (B,) marks before the first of these elements; None for none.
    """
    time = marks.long().cumsum(1)  # 0 before the first picture
    time = time if before is None else time + before[:, None]
    pictures = torch.arange(1, num_pictures + 1, device=marks.device)
    return (time[:, :, None] == pictures).repeat_interleave(num_latents, dim=2)
