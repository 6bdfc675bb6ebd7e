"""Keys and values of a causal layer that takes in several elements at once, such as a prompt, and then one by one.

The caches of `genbench.nn.transformer` let new elements see all that are there; here each sees those before it, so that
a prompt comes in one pass and leaves what the layer would have without a cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class CausalCache:
    """Keys and values of one layer, called as a function that attends (`genbench.nn.transformer.Attend`)."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    @property
    def length(self) -> int:
        """Elements so far."""
        return 0 if self._kept is None else self._kept[0].shape[2]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take in n elements, (B, h, n, d) each; each attends to those before it and to itself: (B, h, n, d)."""
        if self._kept is not None:
            k, v = torch.cat([self._kept[0], k], dim=2), torch.cat([self._kept[1], v], dim=2)
        self._kept = (k, v)
        n, length = q.shape[2], k.shape[2]
        seen = torch.ones(n, length, dtype=torch.bool, device=q.device).tril(length - n)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
