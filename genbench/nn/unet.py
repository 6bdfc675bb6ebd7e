"""U-Net with residual blocks, time conditioning and self-attention (Ronneberger 2015; Ho, Jain and Abbeel 2020).

Any height and width that `patch` divides will do: each level halves its maps, rounding up, and the way up
restores the sizes of the way down, so 28 px pass as 28, 14, 7, 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn._group_norm import group_norm
from genbench.nn.attention import CrossAttention, SpatialAttention
from genbench.nn.embedding import TimeEmbedding


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding added between them, then attention if it has heads.

    It starts as its own skip connection: the second convolution is zero.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding_dim: length of the time embedding.
        dropout: share of the features dropped before the second convolution.
        num_heads: heads of the attention behind the convolutions; 0 leaves it out.
        token_dim: length of tokens that the block also attends to; 0 for no tokens.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_dim: int,
        dropout: float,
        num_heads: int,
        token_dim: int = 0,
    ) -> None:
        super().__init__()
        same = in_channels == out_channels
        self.norm1 = group_norm(in_channels)
        self.conv1 = _convolution(in_channels, out_channels)
        self.shift = nn.Linear(embedding_dim, out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(_convolution(out_channels, out_channels))
        self.skip = nn.Identity() if same else _convolution(in_channels, out_channels, kernel_size=1)
        self.attention = SpatialAttention(out_channels, num_heads=num_heads) if num_heads else nn.Identity()
        told = bool(num_heads and token_dim)
        self.cross = CrossAttention(out_channels, token_dim, num_heads=num_heads) if told else None

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Map (B, in_channels, H, W), an activated embedding (B, E) and tokens to (B, out_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.shift(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        h = cast("Tensor", self.attention(self.skip(x) + h))
        return h if self.cross is None or tokens is None else self.cross(h, tokens)


class Descent(nn.Module):
    """One level on the way down; it leaves the output of every layer on the stack of skips.

    Args:
        blocks: residual blocks, in order.
        reduce: what halves the maps behind them, None at the bottom.
    """

    def __init__(self, blocks: Sequence[ResidualBlock], reduce: nn.Module | None) -> None:
        super().__init__()
        self.blocks = cast("Sequence[ResidualBlock]", nn.ModuleList(blocks))
        self.reduce = reduce

    def forward(self, h: Tensor, embedding: Tensor, tokens: Tensor | None, skips: list[Tensor]) -> Tensor:
        """Map (B, C, H, W) to the input of the next level."""
        for block in self.blocks:
            h = block(h, embedding, tokens)
            skips.append(h)
        if self.reduce is not None:
            h = self.reduce(h)
            skips.append(h)
        return h


class Ascent(nn.Module):
    """One level on the way up; every block takes the latest skip off the stack.

    Args:
        blocks: residual blocks, in order.
        refine: the convolution behind the enlarged maps, None at the top.
    """

    def __init__(self, blocks: Sequence[ResidualBlock], refine: nn.Module | None) -> None:
        super().__init__()
        self.blocks = cast("Sequence[ResidualBlock]", nn.ModuleList(blocks))
        self.refine = refine

    def forward(self, h: Tensor, embedding: Tensor, tokens: Tensor | None, skips: list[Tensor]) -> Tensor:
        """Map (B, C, H, W) to the input of the next level, of that level's size."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding, tokens)
        if self.refine is not None:
            h = self.refine(F.interpolate(h, size=skips[-1].shape[-2:], mode="nearest"))
        return h


class UNet(nn.Module):
    """Map noised images (B, in_channels, H, W) and times (B,) to (B, out_channels, H, W).

    Args:
        in_channels: channels of the images.
        out_channels: channels of the result.
        resolution: H = W, which fixes the level that attends.
        width: channels of the first level.
        multipliers: channels of each level as multiples of `width`; one level per entry.
        num_blocks: residual blocks per level on the way down; the way up has one more.
        attention_resolution: the first level whose maps are at most this large attends, as does the bottom.
        num_heads: heads of each attention; 0 leaves attention out everywhere.
        dropout: share of features dropped in each residual block.
        patch: side of the squares of pixels that are stacked into channels at the door.
        token_dim: length of the tokens of a condition, to which all attending blocks attend; 0 takes no tokens.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resolution: int,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_resolution: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        patch: int = 1,
        token_dim: int = 0,
    ) -> None:
        super().__init__()
        if resolution % patch:
            raise ValueError(f"patches of {patch} px do not tile {resolution} px")
        self.patch, self.embedding_dim = patch, 4 * width
        self._dropout, self._num_heads, self._token_dim = dropout, num_heads, token_dim
        channels = [width * multiple for multiple in multipliers]
        attending = first_level_within(attention_resolution, resolution // patch)
        self.embed = TimeEmbedding(width, self.embedding_dim)
        self.stem = _convolution(in_channels * patch**2, width)
        self.down, skip_channels = self._make_down(width, channels, num_blocks, attending)
        self.middle1 = self._block(channels[-1], channels[-1], attends=True)
        self.middle2 = self._block(channels[-1], channels[-1], attends=False)
        self.up = self._make_up(channels, skip_channels, num_blocks, attending)
        self.norm = group_norm(channels[0])
        self.out = _zero(_convolution(channels[0], out_channels * patch**2))
        self.to(memory_format=torch.channels_last)  # halves the time of a step on a CPU

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (B, in_channels, H, W) float.
            t: (B,) times; `nn.embedding.sinusoidal` says on which scale.
            condition: vectors (B, embedding_dim), added to the time embedding, or tokens (B, T, token_dim).
        """
        embedding, tokens = self.embed(t), None
        if condition is not None and condition.ndim == 3:
            tokens = condition
        elif condition is not None:
            embedding = embedding + condition
        embedding = F.silu(embedding)
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = [h]
        for descent in self.down:
            h = descent(h, embedding, tokens, skips)
        h = self.middle2(self.middle1(h, embedding, tokens), embedding)
        for ascent in self.up:
            h = ascent(h, embedding, tokens, skips)
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), self.patch)

    def _make_down(
        self, width: int, channels: list[int], num_blocks: int, attending: int
    ) -> tuple[Sequence[Descent], list[int]]:
        levels, skips = [], [width]
        for level, wide in enumerate(channels):
            first = skips[-1]
            blocks = [self._block(wide if i else first, wide, attends=level == attending) for i in range(num_blocks)]
            last = level == len(channels) - 1
            levels.append(Descent(blocks, None if last else _convolution(wide, wide, stride=2)))
            skips += [wide] * (num_blocks + (not last))
        return cast("Sequence[Descent]", nn.ModuleList(levels)), skips

    def _make_up(
        self, channels: list[int], skip_channels: list[int], num_blocks: int, attending: int
    ) -> Sequence[Ascent]:
        levels, skips, below = [], list(skip_channels), channels[-1]
        for level, wide in reversed(list(enumerate(channels))):
            blocks = []
            for _ in range(num_blocks + 1):
                blocks.append(self._block(below + skips.pop(), wide, attends=level == attending))
                below = wide
            levels.append(Ascent(blocks, _convolution(wide, wide) if level else None))
        return cast("Sequence[Ascent]", nn.ModuleList(levels))

    def _block(self, in_channels: int, out_channels: int, *, attends: bool) -> ResidualBlock:
        return ResidualBlock(
            in_channels,
            out_channels,
            embedding_dim=self.embedding_dim,
            dropout=self._dropout,
            num_heads=self._num_heads if attends else 0,
            token_dim=self._token_dim,
        )


def first_level_within(attention_resolution: int, size: int) -> int:
    """Index of the first level whose maps are at most `attention_resolution` wide."""
    level = 0
    while size > max(1, attention_resolution):
        size, level = (size + 1) // 2, level + 1
    return level


def _convolution(in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    return layer
