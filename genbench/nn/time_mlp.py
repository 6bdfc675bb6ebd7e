"""A residual network of points, times and conditions: what a U-Net is to images, for vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn.embedding import TimeEmbedding


class TimeBlock(nn.Module):
    """h + W2 silu(W1 norm(h) + W3 e), equal at its start to the identity.

    Args:
        width: of h, and of the layer between.
        embedding_dim: length of e.
    """

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.shift = nn.Linear(embedding_dim, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Map h (B, width) and an activated embedding (B, E) to (B, width)."""
        change: Tensor = self.out(F.silu(self.hidden(self.norm(h)) + self.shift(embedding)))
        return h + change


class TimeMLP(nn.Module):
    """Map points (B, in_dim) and times (B,) to (B, out_dim); 0 at its start.

    It is called as `nn.unet.UNet` is.

    Args:
        in_dim: of the points.
        out_dim: of the result.
        width: of every layer, even and at least 4.
        num_blocks: residual blocks of two layers.
    """

    def __init__(self, in_dim: int, out_dim: int, *, width: int, num_blocks: int) -> None:
        super().__init__()
        self.embedding_dim = width
        self.embed = TimeEmbedding(width, width)
        self.stem = nn.Linear(in_dim, width)
        blocks = [TimeBlock(width, width) for _ in range(num_blocks)]
        self.blocks = cast("Sequence[TimeBlock]", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (B, in_dim) float.
            t: (B,) times; `nn.embedding.sinusoidal` says on which scale.
            condition: vectors (B, embedding_dim), added to the time embedding.
        """
        embedding = self.embed(t)
        if condition is not None:
            embedding = embedding + condition
        embedding = F.silu(embedding)
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, embedding)
        return cast("Tensor", self.out(F.silu(self.norm(h))))
