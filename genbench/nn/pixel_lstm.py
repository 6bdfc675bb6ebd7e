"""Recurrent layers in two dimensions that see nothing later in raster order.

A row LSTM goes from row to row, a diagonal BiLSTM from diagonal to diagonal, once from the left and once from the right
(van den Oord et al. 2016, 1601.06759, Sec. 3.1 and 3.2). Features form one group for each channel of the image; within
a pixel, inputs reach the gates through masks between groups, while states are those of other pixels and reach all.

Symbols: `B H W` as usual, `C` channels of the image, `h` and `c` hidden and cell states and their number of features,
`o f i g` gates, each of the size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn.masked_conv import CausalConv2d, channel_groups

NUM_GATES = 4


class PixelCell(nn.Module):
    """The maps of inputs and states to gates, whose features are ordered by channel, then by gate.

    Args:
        num_channels: C.
        in_groups: of the inputs.
        per_channel: features of a state for each channel, h / C.
        reach: pixels on the left whose inputs are seen.
        taps: states that a state sees.
    """

    def __init__(self, num_channels: int, in_groups: Tensor, per_channel: int, *, reach: int, taps: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        width = num_channels * per_channel
        gate_groups = channel_groups(num_channels, NUM_GATES * per_channel)
        self.of_inputs = CausalConv2d(in_groups, gate_groups, mask="B", reach=reach)
        self.of_states = nn.Conv1d(width, NUM_GATES * width, taps, bias=False)
        self.of_states.weight.data = torch.randn_like(self.of_states.weight) * (taps * width) ** -0.5

    def step(self, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden and cell states (B, h, ...) from gates (B, 4h, ...) and the cell states before, (B, h, ...)."""
        by_gate = gates.unflatten(1, (self.num_channels, NUM_GATES, -1)).unbind(2)
        hidden, cell = lstm(by_gate, cell.unflatten(1, (self.num_channels, -1)))
        return hidden.flatten(1, 2), cell.flatten(1, 2)


def lstm(gates: Sequence[Tensor], cell: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 3 past its convolutions: c = sigm(f) c + sigm(i) tanh(g) and h = sigm(o) tanh(c), for gates o, f, i, g."""
    o, f, i, g = gates
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class RowLSTM(nn.Module):
    """From row to row, each state from three of the row above (Sec. 3.1).

    Args:
        num_channels: C.
        in_groups: of the inputs.
        per_channel: features of a state for each channel.
    """

    def __init__(self, num_channels: int, in_groups: Tensor, per_channel: int) -> None:
        super().__init__()
        self.cell = PixelCell(num_channels, in_groups, per_channel, reach=1, taps=3)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, I, H, W) to states (B, h, H, W)."""
        of_inputs = self.cell.of_inputs(x)
        hidden = cell = x.new_zeros(len(x), of_inputs.shape[1] // NUM_GATES, x.shape[3])
        states = []
        for gates in of_inputs.unbind(2):
            hidden, cell = self.cell.step(gates + self.cell.of_states(F.pad(hidden, (1, 1))), cell)
            states.append(hidden)
        return torch.stack(states, dim=2)


class DiagonalLSTM(nn.Module):
    """From diagonal to diagonal, each state from those above and on the left, the cell from the left (Sec. 3.2).

    Args:
        num_channels: C.
        in_groups: of the inputs.
        per_channel: features of a state for each channel.
    """

    def __init__(self, num_channels: int, in_groups: Tensor, per_channel: int) -> None:
        super().__init__()
        self.cell = PixelCell(num_channels, in_groups, per_channel, reach=0, taps=2)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, I, H, W) to states (B, h, H, W)."""
        of_inputs = skewed(self.cell.of_inputs(x))
        hidden = cell = x.new_zeros(len(x), of_inputs.shape[1] // NUM_GATES, x.shape[2])
        states = []
        for gates in of_inputs.unbind(3):  # of the diagonal before, a state sees the row above and its own
            hidden, cell = self.cell.step(gates + self.cell.of_states(F.pad(hidden, (1, 0))), cell)
            states.append(hidden)
        return unskewed(torch.stack(states, dim=3), x.shape[3])


class DiagonalBiLSTM(nn.Module):
    """One diagonal LSTM from the left and one from the right, moved down by a row so that it sees nothing later.

    Args:
        num_channels: C.
        in_groups: of the inputs.
        per_channel: features of a state for each channel.
    """

    def __init__(self, num_channels: int, in_groups: Tensor, per_channel: int) -> None:
        super().__init__()
        self.from_left = DiagonalLSTM(num_channels, in_groups, per_channel)
        self.from_right = DiagonalLSTM(num_channels, in_groups, per_channel)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, I, H, W) to states (B, h, H, W)."""
        left: Tensor = self.from_left(x)
        right: Tensor = self.from_right(x.flip(3)).flip(3)
        return left + F.pad(right, (0, 0, 1, -1))


def skewed(x: Tensor) -> Tensor:
    """Maps (B, F, H, W) with row i moved to the right by i, and zeros beside it: (B, F, H, W + H - 1)."""
    B, features, H, W = x.shape
    padded = F.pad(x, (0, H)).flatten(2)  # in rows of W + H - 1, each row of W + H starts one later than the last
    return padded[:, :, : H * (W + H - 1)].view(B, features, H, W + H - 1)


def unskewed(x: Tensor, width: int) -> Tensor:
    """The inverse of `skewed`: (B, F, H, W + H - 1) to (B, F, H, W)."""
    B, features, H, _ = x.shape
    return F.pad(x.flatten(2), (0, H)).view(B, features, H, width + H)[:, :, :, :width]
