"""Codes drawn from a softmax in evaluation, and mixed by a relaxed draw in training, with a codebook of vectors.

Jang, Gu and Poole 2017 (1611.01144), Maddison, Mnih and Teh 2017 (1611.00712): with Gumbel draws g,

    y = softmax((l + g) / tau),    vector = sum_k y_k e_k

is a draw of softmax(l) as tau falls to 0, and has a gradient to l before that.

Symbols: l logits, K codes, D dimensions, tau temperature.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Relaxed(NamedTuple):
    """What stands for features in training."""

    values: Tensor
    """(B, D, H, W): mixtures of codes."""
    rate: Tensor
    """(B,), KL of the softmax to the uniform law, summed over places, nats."""


class RelaxedQuantizer(nn.Module):
    """A codebook of K vectors, chosen by K features.

    Args:
        num_codes: K.
        code_dim: D.
    """

    def __init__(self, num_codes: int, code_dim: int) -> None:
        super().__init__()
        self.num_codes, self.code_dim = num_codes, code_dim
        self.codebook = nn.Parameter(torch.randn(num_codes, code_dim))

    def forward(self, logits: Tensor, *, temperature: Tensor) -> Relaxed:
        """Relaxed draws from logits (B, K, H, W), from the global stream.

        Args:
            logits: l.
            temperature: tau, a scalar.
        """
        log_q = logits.log_softmax(1)
        rate = (log_q.exp() * (log_q + math.log(self.num_codes))).flatten(1).sum(1)
        limits = torch.finfo(logits.dtype)
        uniform = torch.rand_like(logits).clamp(limits.tiny, 1.0 - limits.eps)
        y = torch.softmax((log_q - torch.log(-torch.log(uniform))) / temperature, dim=1)
        return Relaxed(torch.einsum("bkhw,kd->bdhw", y, self.codebook), rate)

    @torch.no_grad()
    def nearest(self, logits: Tensor) -> Tensor:
        """Most probable codes of logits (B, K, H, W): (B, H, W) int64."""
        return logits.argmax(1)

    def embed(self, codes: Tensor) -> Tensor:
        """Vectors of codes (B, H, W): (B, D, H, W)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)
