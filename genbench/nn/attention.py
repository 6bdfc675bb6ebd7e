"""Attention of the positions of a feature map to each other, or to tokens of something else."""

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


class CrossAttention(nn.Module):
    """Residual attention of all positions of (B, C, H, W) to tokens (B, T, E), equal at its start to the identity.

    x + out(softmax(q k^T / sqrt(d)) v), where q is linear in group-normalised features and k and v in the tokens
    (Rombach et al. 2022, 2112.10752, Sec. 3.3). A token of zeros is padding: nobody attends to it.

    Args:
        channels: C.
        token_dim: E.
        num_heads: must divide C.
    """

    def __init__(self, channels: int, token_dim: int, *, num_heads: int = 1) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{channels} channels do not split into {num_heads} heads")
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(token_dim, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Attend: the shape of `x`."""
        q = self._heads(self.query(self.norm(x).flatten(2).transpose(1, 2)))  # (B, heads, H*W, C / heads)
        k, v = (self._heads(part) for part in self.key_value(tokens).chunk(2, dim=2))
        words = (tokens != 0).any(2)[:, None, None]  # (B, 1, 1, T)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=words).transpose(1, 2).flatten(2)  # (B, H*W, C)
        change: Tensor = self.out(mixed)
        return x + change.transpose(1, 2).reshape(x.shape)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, heads, L, C / heads)."""
        split: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return split
