"""Incremental states of the layers of `pixel_lstm`: every state is computed once, when what it needs is known.

Symbols: `N` samples, `W` pixels of a row, `h` features of a state, `C` channels of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.nn.masked_conv import IncrementalConv
from genbench.nn.pixel_lstm import NUM_GATES, DiagonalBiLSTM, PixelCell, RowLSTM, lstm


class IncrementalLSTM(ABC):
    """A recurrent layer whose inputs become known pixel after pixel and, within a pixel, channel after channel.

    Args:
        cell: its maps.
        num_samples: N.
        width: W.
    """

    def __init__(self, cell: PixelCell, num_samples: int, width: int) -> None:
        self.inputs = IncrementalConv(cell.of_inputs, cell.num_channels, num_samples, width)
        self.taps = cell.of_states.weight.permute(2, 1, 0).contiguous()  # (taps, h, 4h)
        num_gates = self.taps.shape[2]
        zeros = self.taps.new_zeros
        self.hidden = zeros(width, num_samples, num_gates // NUM_GATES)
        self.cells = torch.zeros_like(self.hidden)
        self.told = zeros(width, num_samples, num_gates)  # what states of the row above say
        self.gates, self.cell_before = self.told[0], self.cells[0]  # of the pixel, from states that are known

    def start_row(self) -> None:
        """Gather what the rows above say of every pixel of the next row."""
        self.inputs.start_row()
        self.told = self.told_from_above()

    def start_pixel(self, j: int) -> None:
        """Gather what the pixels to the left of pixel `j` say."""
        self.inputs.start_pixel(j)
        self.gates, self.cell_before = self.known(j)

    def states(self, j: int, group: int, features: Tensor) -> Tensor:
        """Hidden states (N, h / C) of one channel of pixel `j`, whose inputs (N, I / C) are given."""
        self.inputs.put(j, group, features)
        gates = self.inputs.output(j, group)
        n = gates.shape[1] // NUM_GATES
        mine, my_gates = slice(group * n, (group + 1) * n), slice(group * n * NUM_GATES, (group + 1) * n * NUM_GATES)
        hidden, cell = lstm((gates + self.gates[:, my_gates]).chunk(NUM_GATES, dim=1), self.cell_before[:, mine])
        self.hidden[j, :, mine], self.cells[j, :, mine] = hidden, cell
        return hidden

    @abstractmethod
    def output(self, j: int, group: int, features: Tensor) -> Tensor:
        """What the layer says (N, h / C) of one channel of pixel `j`, whose inputs (N, I / C) are given."""

    @abstractmethod
    def finish_row(self) -> None:
        """Keep what later rows need of the row that is complete."""

    @abstractmethod
    def told_from_above(self) -> Tensor:
        """What the states of the row above, still in `hidden`, say of the gates: (W, N, 4h)."""

    @abstractmethod
    def known(self, j: int) -> tuple[Tensor, Tensor]:
        """What known states say of the gates of pixel `j`, and the cell states that it follows: (N, 4h) and (N, h)."""


class IncrementalRow(IncrementalLSTM):
    """Of a row LSTM."""

    def __init__(self, layer: RowLSTM, num_samples: int, width: int) -> None:
        super().__init__(layer.cell, num_samples, width)
        self.cells_above = self.cells

    def output(self, j: int, group: int, features: Tensor) -> Tensor:
        """The states."""
        return self.states(j, group, features)

    def finish_row(self) -> None:
        """Keep the inputs that later rows need."""
        self.inputs.finish_row()

    def told_from_above(self) -> Tensor:
        """Of three states each."""
        self.cells_above = self.cells.clone()  # those of the row will overwrite them
        around = F.pad(self.hidden, (0, 0, 0, 0, 1, 1))  # (W + 2, N, h)
        seen = torch.stack([around[tap : tap + len(self.hidden)] for tap in range(len(self.taps))], dim=2)
        return seen.flatten(2) @ self.taps.flatten(0, 1)

    def known(self, j: int) -> tuple[Tensor, Tensor]:
        """All from the row above."""
        return self.told[j], self.cells_above[j]


class IncrementalDiagonal(IncrementalLSTM):
    """Of a diagonal BiLSTM: the layer from the left, and of that from the right the states of the row above."""

    def __init__(self, layer: DiagonalBiLSTM, num_samples: int, width: int) -> None:
        super().__init__(layer.from_left.cell, num_samples, width)
        self.right = layer.from_right.cell
        self.right_of_inputs = self.right.of_inputs.masked_weight[:, :, 0, 0].T  # (I, 4h)
        self.right_taps = self.right.of_states.weight.permute(2, 1, 0).contiguous()
        self.from_right = torch.zeros_like(self.hidden)
        self.nothing = torch.zeros_like(self.cells[0])

    def output(self, j: int, group: int, features: Tensor) -> Tensor:
        """The states of both layers, added."""
        hidden = self.states(j, group, features)
        n = hidden.shape[1]
        return hidden + self.from_right[j, :, group * n : (group + 1) * n]

    def finish_row(self) -> None:
        """Run the layer from the right over the row."""
        gates = self.inputs.inputs @ self.right_of_inputs + self.right.of_inputs.offset
        gates = gates + self.from_right @ self.right_taps[0]
        hidden = cell = self.nothing
        for j in reversed(range(len(gates))):
            hidden, cell = self.right.step(torch.addmm(gates[j], hidden, self.right_taps[1]), cell)
            self.from_right[j] = hidden
        self.inputs.finish_row()

    def told_from_above(self) -> Tensor:
        """Of one state each."""
        return self.hidden @ self.taps[0]

    def known(self, j: int) -> tuple[Tensor, Tensor]:
        """From the row above and the left."""
        if j == 0:
            return self.told[j], self.nothing
        return torch.addmm(self.told[j], self.hidden[j - 1], self.taps[1]), self.cells[j - 1]


def incremental_lstm(layer: RowLSTM | DiagonalBiLSTM, num_samples: int, width: int) -> IncrementalLSTM:
    """The incremental form of a layer."""
    if isinstance(layer, RowLSTM):
        return IncrementalRow(layer, num_samples, width)
    return IncrementalDiagonal(layer, num_samples, width)
