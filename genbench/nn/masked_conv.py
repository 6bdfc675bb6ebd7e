"""Convolutions over what comes before a pixel in raster order, with an order of channels within the pixel.

Features form one group for each channel of the image. At the pixel itself a group sees the groups before it (mask A) or
its own as well (mask B), so that red is known before green and green before blue (van den Oord et al. 2016, 1601.06759,
Sec. 3.4). `IncrementalConv` computes the same outputs one at a time, as soon as what they need is known.

Symbols: `B H W` as usual, `I` and `O` inputs and outputs, `G` groups, `N` samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn.gated_pixelcnn import Mask

RELU_GAIN = 2.0**0.5
"""Keeps the second moment of features that a ReLU has cut (He et al. 2015, 1502.01852)."""


def channel_groups(num_channels: int, num_features: int) -> Tensor:
    """The group of each of `num_features` features of every channel, side by side: (C * F,)."""
    return torch.arange(num_channels).repeat_interleave(num_features)


class CausalConv2d(nn.Conv2d):
    """A convolution over rows above, pixels to the left and the pixel itself, where groups are masked.

    Args:
        in_groups: (I,), the group of each input.
        out_groups: (O,), the group of each output, in ascending order for `IncrementalConv`.
        mask: `A` or `B`.
        rows_above: rows that are seen above the pixel.
        reach: pixels that are seen to either side, in the rows above, and to the left in the row of the pixel.
        gain: of the first weights, on top of what keeps the variance of the inputs.
    """

    mask: Tensor

    def __init__(
        self,
        in_groups: Tensor,
        out_groups: Tensor,
        *,
        mask: Mask,
        rows_above: int = 0,
        reach: int = 0,
        gain: float = 1.0,
    ) -> None:
        super().__init__(len(in_groups), len(out_groups), (rows_above + 1, 2 * reach + 1))
        allowed = torch.zeros_like(self.weight)
        allowed[:, :, :-1] = 1.0
        allowed[:, :, -1, :reach] = 1.0
        seen = in_groups < out_groups[:, None] if mask == "A" else in_groups <= out_groups[:, None]
        allowed[:, :, -1, reach] = seen.float()
        self.register_buffer("mask", allowed, persistent=False)
        fan_in = allowed.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
        self.weight.data = gain * torch.randn_like(self.weight) * fan_in.rsqrt()
        nn.init.zeros_(self.offset)

    @property
    def masked_weight(self) -> Tensor:
        """Weights with the forbidden ones at zero: (O, I, rows_above + 1, 2 reach + 1)."""
        return self.weight * self.mask

    @property
    def offset(self) -> Tensor:
        """The bias, which is always there: (O,)."""
        assert self.bias is not None
        return self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H, W)."""
        rows, columns = self.kernel_size
        reach = columns // 2
        return F.conv2d(F.pad(x, (reach, reach, rows - 1, 0)), self.masked_weight, self.bias)


class IncrementalConv:
    """A convolution whose inputs become known pixel after pixel and, within a pixel, group after group.

    What rows above say is computed for a whole row at once when it starts, what pixels on the left say for all groups
    at once when a pixel starts. An input that is not known yet meets a weight of zero.

    Args:
        conv: the convolution.
        num_groups: G.
        num_samples: N.
        width: W.
    """

    def __init__(self, conv: CausalConv2d, num_groups: int, num_samples: int, width: int) -> None:
        weight = conv.masked_weight
        rows, columns = conv.kernel_size
        self.reach, self.width = columns // 2, width
        self.above, self.bias = weight[:, :, :-1], conv.offset
        self.left = weight[:, :, -1, : self.reach].permute(2, 1, 0).contiguous()  # (reach, I, O)
        here = weight[:, :, -1, self.reach].unflatten(0, (num_groups, -1))
        self.here = here.transpose(1, 2).contiguous()  # (G, I, O / G)
        zeros = weight.new_zeros
        self.rows = zeros(num_samples, conv.in_channels, rows - 1, width + 2 * self.reach)
        self.inputs = zeros(self.reach + width, num_samples, conv.in_channels)  # the first `reach` are the border
        self.told = self.bias.expand(width, num_samples, -1)  # (W, N, O), from the rows above
        self.before = self.told[0]  # (N, O), from the rows above and the pixels on the left

    def start_row(self) -> None:
        """Gather what the rows above say of every pixel of the next row."""
        if self.rows.shape[2]:
            self.told = F.conv2d(self.rows, self.above, self.bias)[:, :, 0].permute(2, 0, 1)

    def start_pixel(self, j: int) -> None:
        """Gather what the pixels to the left of pixel `j` say."""
        self.before = self.told[j]
        for tap, left in enumerate(self.left):
            self.before = torch.addmm(self.before, self.inputs[j + tap], left)

    def put(self, j: int, group: int, features: Tensor) -> None:
        """Take the features (N, I / G) of one group of pixel `j`."""
        _columns(self.inputs[self.reach + j], group, features.shape[1]).copy_(features)

    def output(self, j: int, group: int) -> Tensor:
        """Outputs (N, O / G) of one group of pixel `j`, once the groups that it sees are put."""
        here = self.here[group]
        return torch.addmm(_columns(self.before, group, here.shape[1]), self.inputs[self.reach + j], here)

    def finish_row(self) -> None:
        """Keep the row that is complete for those below it."""
        if self.rows.shape[2]:
            self.rows[:, :, :-1] = self.rows[:, :, 1:].clone()
            self.rows[:, :, -1, self.reach : self.reach + self.width] = self.inputs[self.reach :].permute(1, 2, 0)


def _columns(x: Tensor, group: int, size: int) -> Tensor:
    return x[:, group * size : (group + 1) * size]
