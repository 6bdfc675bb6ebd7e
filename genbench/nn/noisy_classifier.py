"""A classifier of noised images, the way down of a U-Net with attention that pools, and the slope of what it says.

Dhariwal and Nichol (2021, arXiv:2105.05233, Sec. 4.3) classify with the layers of their U-Net up to its smallest maps,
told the time as it is, and pool these by attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn._group_norm import group_norm
from genbench.nn.embedding import TimeEmbedding
from genbench.nn.resnet import halved_sides
from genbench.nn.unet import Descent, ResidualBlock, first_level_within


class AttentionPool(nn.Module):
    """Maps (B, C, s, s) to one vector (B, out_dim): what their mean attends to (Radford et al. 2021, arXiv:2103.00020).

    out(softmax(q k^T / sqrt(d)) v), with one query of the mean, and keys and values of the mean and of all positions;
    each has a learned vector for its place added.

    Args:
        channels: C.
        side: s.
        out_dim: length of the result.
        num_heads: must divide C.
    """

    def __init__(self, channels: int, side: int, out_dim: int, *, num_heads: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{channels} channels do not split into {num_heads} heads")
        self.num_heads = num_heads
        self.places = nn.Parameter(torch.randn(1 + side**2, channels) * channels**-0.5)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, s^2, C)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.places
        q = self._heads(self.query(tokens[:, :1]))  # (B, heads, 1, C / heads)
        k, v = (self._heads(part) for part in self.key_value(tokens).chunk(2, dim=2))
        pooled = F.scaled_dot_product_attention(q, k, v).flatten(1)  # (B, C)
        return cast("Tensor", self.out(pooled))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, heads, L, C / heads)."""
        split: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return split


class NoisyClassifier(nn.Module):
    """Map noised images (B, in_channels, H, W) and times (B,) to logits of classes (B, num_classes).

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        resolution: H = W.
        width: channels of the first level.
        multipliers: channels of each level as multiples of `width`; one level per entry.
        num_blocks: residual blocks per level.
        attention_resolution: the first level whose maps are at most this large attends, as does the bottom.
        num_heads: heads of each attention.
        dropout: share of features dropped in each residual block.
        patch: side of the squares of pixels that are stacked into channels at the door.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        resolution: int,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_resolution: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if resolution % patch:
            raise ValueError(f"patches of {patch} px do not tile {resolution} px")
        self.patch, self._embedding_dim = patch, 4 * width
        self._dropout, self._num_heads = dropout, num_heads
        side, channels = resolution // patch, [width * multiple for multiple in multipliers]
        self.embed = TimeEmbedding(width, self._embedding_dim)
        self.stem = nn.Conv2d(in_channels * patch**2, width, 3, padding=1)
        self.down = self._make_down(width, channels, num_blocks, first_level_within(attention_resolution, side))
        self.middle1 = self._block(channels[-1], channels[-1], attends=True)
        self.middle2 = self._block(channels[-1], channels[-1], attends=False)
        self.norm = group_norm(channels[-1])
        smallest = halved_sides(side, len(channels) - 1)[-1]
        self.pool = AttentionPool(channels[-1], smallest, num_classes, num_heads=num_heads)
        self.to(memory_format=torch.channels_last)  # as of the U-Net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Classify.

        Args:
            x: (B, in_channels, H, W) float.
            t: (B,) times; `nn.embedding.sinusoidal` says on which scale.
        """
        embedding = F.silu(self.embed(t))
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        for descent in self.down:
            h = descent(h, embedding, None, [])  # nothing comes up again to need the skips
        h = self.middle2(self.middle1(h, embedding), embedding)
        return cast("Tensor", self.pool(F.silu(self.norm(h))))

    def _make_down(self, width: int, channels: list[int], num_blocks: int, attending: int) -> Sequence[Descent]:
        levels, below = [], width
        for level, wide in enumerate(channels):
            blocks = [self._block(wide if i else below, wide, attends=level == attending) for i in range(num_blocks)]
            last = level == len(channels) - 1
            levels.append(Descent(blocks, None if last else nn.Conv2d(wide, wide, 3, stride=2, padding=1)))
            below = wide
        return cast("Sequence[Descent]", nn.ModuleList(levels))

    def _block(self, in_channels: int, out_channels: int, *, attends: bool) -> ResidualBlock:
        return ResidualBlock(
            in_channels,
            out_channels,
            embedding_dim=self._embedding_dim,
            dropout=self._dropout,
            num_heads=self._num_heads if attends else 0,
        )


def class_slope(classifier: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Gradient in x_t of log p(y | x_t), of each example's own class: the shape of `x`.

    It works under `torch.no_grad` and inference mode, and nothing is differentiable afterwards.

    Args:
        classifier: x_t and times to logits (B, K); treats examples independently.
        x: (B, ...) float, noised data.
        t: (B,) times.
        y: (B,) int64 classes.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        x, t, y = x.clone().detach().requires_grad_(), t.clone(), y.clone()
        log_p = classifier(x, t).log_softmax(1).gather(1, y[:, None]).sum()
        (slope,) = torch.autograd.grad(log_p, x)
    return slope
