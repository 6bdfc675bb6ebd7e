"""Self-attention over the positions of a feature map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn._group_norm import group_norm


class SpatialAttention(nn.Module):
    """Residual self-attention between all positions of (B, C, H, W), equal at its start to the identity.

    x + out(softmax(q k^T / sqrt(d)) v), where q, k and v are linear in group-normalised features.

    Args:
        channels: C.
        num_heads: must divide C.
    """

    def __init__(self, channels: int, *, num_heads: int = 1) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{channels} channels do not split into {num_heads} heads")
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: the shape of `x`."""
        B, C, H, W = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H*W, C)
        split = self.qkv(tokens).unflatten(-1, (3, self.num_heads, C // self.num_heads))
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (B, heads, H*W, C / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, H*W, C)
        change: Tensor = self.out(mixed)
        return x + change.transpose(1, 2).reshape(B, C, H, W)
