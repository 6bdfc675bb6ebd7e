"""Levels of pixels as features of a network, and features of sub-pixels as probabilities of levels.

An ordered level enters as its value, a constant and waves (`OrderedLevels`). Every channel of the image has a linear
map from the features of a sub-pixel to the logits of its levels, whose first weights are random mixtures of the same
waves: levels that look alike start with like logits.

Symbols: `B C H W` images, `K` levels, `F` features of a level, `S` features of a sub-pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn._categorical_head import categorical_log_prob, categorical_nll, draw
from genbench.nn.gated_pixelcnn import OrderedLevels

__all__ = ["LevelSoftmax", "draw"]


class LevelSoftmax(nn.Module):
    """A softmax over the levels of every sub-pixel, a linear map for each channel.

    Args:
        num_channels: C.
        num_levels: K; codes run over 0 .. K-1.
        width: S.
    """

    def __init__(self, num_channels: int, num_levels: int, width: int) -> None:
        super().__init__()
        self.levels = OrderedLevels(num_levels)
        self.num_features = self.levels.table.shape[1]
        mix = torch.randn(num_channels, self.num_features, width) * self.num_features**-0.5
        self.weight = nn.Parameter(self.levels.table @ mix)  # (C, K, S)
        self.bias = nn.Parameter(torch.zeros(num_channels, num_levels))

    def start_from(self, codes: Tensor) -> None:
        """Set the biases to the log-frequencies of the levels in (B, C, H, W), each counted once more."""
        for c, bias in enumerate(self.bias.data):
            counts = codes[:, c].flatten().bincount(minlength=len(bias)) + 1
            bias.copy_((counts / counts.sum()).log())

    def embedded(self, codes: Tensor) -> Tensor:
        """Features of the levels of images (B, C, H, W): (B, C * F, H, W), channel by channel."""
        return F.embedding(codes.permute(0, 2, 3, 1), self.levels.table).flatten(3).permute(0, 3, 1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (..., C, K) of features (..., C, S)."""
        return torch.einsum("...cs,cks->...ck", features, self.weight) + self.bias

    def of_channel(self, channel: int, features: Tensor) -> Tensor:
        """Logits (N, K) of one channel from features (N, S)."""
        return torch.addmm(self.bias[channel], features, self.weight[channel].T)

    def log_prob(self, features: Tensor, codes: Tensor) -> Tensor:
        """Log-probability of every image: (B,) nats.

        Args:
            features: (B, ..., C, S).
            codes: (B, ..., C) int64, of the same order.
        """
        picked = categorical_log_prob(self._rows(features), self.weight, self.bias, codes.reshape(-1, codes.shape[-1]))
        return picked.view(len(codes), -1).sum(1, dtype=torch.float64).to(picked.dtype)

    def nll(self, features: Tensor, codes: Tensor) -> Tensor:
        """Minus the sum of `log_prob` over the batch, a scalar in nats; cheaper to differentiate."""
        return categorical_nll(self._rows(features), self.weight, self.bias, codes.reshape(-1, codes.shape[-1]))

    def _rows(self, features: Tensor) -> Tensor:
        return features.reshape(-1, *features.shape[-2:])
