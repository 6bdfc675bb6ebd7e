"""Drawing from shifted streams pixel after pixel: every feature of every grid is computed once.

A feature of a coarser grid stands at the first of the pixels that it is spread over and sees what comes before that
one alone. So the stream `u` of every second row, and the stream `ul` of every second pixel of such a row, takes one
step on the next grid, and what grows back from there is kept for the pixels beside and below. A layer of `u` keeps the
last row of its inputs. A layer of `ul` adds up what the row above says of all pixels when a row starts.

Symbols: `N` samples, `w` width, `W` columns, `I` and `O` inputs and outputs of a layer.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.nn.shifted_streams import (
    Block,
    Coarser,
    GatedResidual,
    Grid,
    ShiftedStreams,
    concat_elu,
    gated_residual,
)
from genbench.nn.weight_norm import NormalisedConv2d


class StreamsProgress:
    """The features of all grids, as far as pixels are known.

    Args:
        network: the streams.
        num_samples: N.
        width: W.
        condition: (N, D), or None.
    """

    def __init__(self, network: ShiftedStreams, num_samples: int, width: int, condition: Tensor | None) -> None:
        self.grid = _GridProgress(network.grid, num_samples, width, condition)
        self.above_u = _RowConv(network.above_u, num_samples, width)
        self.above_ul, self.left_ul = network.above_ul, network.left_ul
        weight = self.left_ul.weight
        self.left = weight[:, :, 1, 0].T.contiguous()  # (C + 1, w)
        self.row = weight.new_zeros(num_samples, network.num_channels + 1, 1, width)
        self.told = self.left

    def start_row(self) -> None:
        """Take the last row for one of those above and compute all that rows above say."""
        above = self.row.clone()
        u = self.above_u(above)  # which keeps the row before
        of_above = F.conv2d(F.pad(above, (1, 1)), self.above_ul.weight, self.above_ul.bias)
        left = F.conv2d(F.pad(above, (1, -1)), self.left_ul.weight[:, :, :1], self.left_ul.bias)
        self.told = of_above + left  # (N, w, 1, W)
        self.row.zero_()
        self.grid.start_row(u)

    def features(self, j: int) -> Tensor:
        """Features (N, w) of pixel `j` of the row; asked for once, in order."""
        ul = self.told[:, :, 0, j]
        if j:
            ul = torch.addmm(ul, self.row[:, :, 0, j - 1], self.left)
        return F.elu(self.grid.pixel(ul, j))

    def put(self, j: int, x: Tensor) -> None:
        """Take pixel `j` of the row, (N, C) in [-1, 1]."""
        self.row[:, :-1, 0, j] = x
        self.row[:, -1, 0, j] = 1.0


class _GridProgress:
    """The blocks of one grid and what they keep."""

    def __init__(self, grid: Grid, num_samples: int, width: int, condition: Tensor | None) -> None:
        def blocks(of: list[Block]) -> list[tuple[_RowResidual, _PixelResidual]]:
            return [
                (_RowResidual(b.u, num_samples, width, condition), _PixelResidual(b.ul, num_samples, width, condition))
                for b in of
            ]

        self.there, self.back = blocks(list(grid.there)), blocks(list(grid.back))
        found = grid.coarser
        self.coarser = None if found is None else _CoarserProgress(found, num_samples, width, condition)
        self.rows: list[Tensor] = []

    def start_row(self, u: Tensor) -> Tensor:
        """Features of `u` (N, w, 1, W) of the next row, after all blocks, for those before them."""
        found = [u]
        for row, _ in self.there:
            found.append(row(found[-1], None))
        self.rows = found[1:]  # of every block, in order
        u = found.pop() if self.coarser is None else self.coarser.start_row(found[-1])
        for row, _ in self.back:
            u = row(u, found.pop())
            self.rows.append(u)
        for _, pixel in (*self.there, *self.back):
            pixel.start_row()
        return u

    def pixel(self, ul: Tensor, j: int) -> Tensor:
        """Features of `ul` (N, w) of pixel `j` of the row, after all blocks, for those before them."""
        found, rows = [ul], iter(self.rows)
        for _, pixel in self.there:
            found.append(pixel(found[-1], j, next(rows)[:, :, 0, j]))
        ul = found.pop() if self.coarser is None else self.coarser.pixel(found[-1], j)
        for _, pixel in self.back:
            ul = pixel(ul, j, torch.cat([next(rows)[:, :, 0, j], found.pop()], dim=1))
        return ul


class _CoarserProgress:
    """A coarser grid, which takes a step for every second row and, there, for every second pixel."""

    def __init__(self, coarser: Coarser, num_samples: int, width: int, condition: Tensor | None) -> None:
        half = -(-width // 2)
        self.grid = _GridProgress(coarser.grid, num_samples, half, condition)
        self.shrink_u = _RowConv(coarser.shrink_u, num_samples, width)
        self.shrink_ul = _PixelConv(coarser.shrink_ul, num_samples, width)
        self.grow_u, self.grow_ul, self.width = coarser.grow_u, coarser.grow_ul, width
        w = len(coarser.shrink_u.bias)
        self.grown_u = coarser.shrink_u.bias.new_zeros(num_samples, w, 2, width)
        self.grown_ul = self.grown_u.new_zeros(num_samples, w, 2, 2 * half)
        self.grown_weight = self.grow_ul.weight.permute(1, 0, 2, 3).flatten(1)  # (w, 4w)
        self.odd = True  # whether the row is, as numbered from 0

    def start_row(self, u: Tensor) -> Tensor:
        """Features (N, w, 1, W) that grow back, for those of `u` on the finer grid."""
        self.odd = not self.odd
        self.shrink_ul.start_row()
        small = self.shrink_u(u)
        if not self.odd:
            self.grown_u = self.grow_u(self.grid.start_row(small))[..., : self.width]
        return self.grown_u[:, :, int(self.odd) :][:, :, :1]

    def pixel(self, ul: Tensor, j: int) -> Tensor:
        """Features (N, w) that grow back, for those of `ul` on the finer grid."""
        self.shrink_ul.put(j, ul)
        if not self.odd and j % 2 == 0:
            small = self.grid.pixel(self.shrink_ul.output(j), j // 2)
            grown = (small @ self.grown_weight).unflatten(1, (-1, 2, 2)) + self.grow_ul.bias[:, None, None]
            self.grown_ul[:, :, :, j : j + 2] = grown
        return self.grown_ul[:, :, int(self.odd), j]


class _RowConv:
    """A down-shifted convolution that is given row after row."""

    def __init__(self, conv: NormalisedConv2d, num_samples: int, width: int) -> None:
        self.weight, self.bias, self.stride = conv.weight, conv.bias, conv.stride
        self.before = self.weight.new_zeros(num_samples, self.weight.shape[1], 1, width)

    def __call__(self, row: Tensor) -> Tensor:
        """Outputs (N, O, 1, W / stride) of the row (N, I, 1, W)."""
        rows = torch.cat([self.before, row], dim=2)
        self.before = row
        return F.conv2d(F.pad(rows, (1, 1)), self.weight, self.bias, stride=self.stride)


class _PixelConv:
    """A down-right-shifted convolution that is given pixel after pixel."""

    def __init__(self, conv: NormalisedConv2d, num_samples: int, width: int) -> None:
        weight, self.bias = conv.weight, conv.bias
        above, self.here = weight.permute(2, 3, 1, 0).flatten(1, 2)  # (2I, O) each, from the left and the pixel itself
        self.above_left, self.above = above.chunk(2)
        self.inputs = weight.new_zeros(num_samples, width + 1, weight.shape[1])  # the first of a row is the border
        self.told = self.inputs

    def start_row(self) -> None:
        """Add up what the row above says of every pixel: (N, W, O)."""
        self.told = self.inputs[:, :-1] @ self.above_left + self.inputs[:, 1:] @ self.above + self.bias

    def put(self, j: int, x: Tensor) -> None:
        """Take the inputs (N, I) of pixel `j`."""
        self.inputs[:, j + 1] = x

    def output(self, j: int) -> Tensor:
        """Outputs (N, O) of pixel `j`."""
        return torch.addmm(self.told[:, j], self.inputs[:, j : j + 2].flatten(1), self.here)

    def passed(self, j: int, x: Tensor) -> Tensor:
        """Outputs (N, O) of pixel `j` once its inputs (N, I) are there."""
        self.put(j, x)
        return self.output(j)


class _RowResidual:
    """A residual block of `u`."""

    def __init__(self, block: GatedResidual, num_samples: int, width: int, condition: Tensor | None) -> None:
        self.block = block
        self.first, self.gates = (_RowConv(conv, num_samples, width) for conv in (block.first, block.gates))
        told = block.told(condition)
        self.told = None if told is None else told[:, :, None, None]

    def __call__(self, x: Tensor, beside: Tensor | None) -> Tensor:
        """(N, w, 1, W) to the same shape."""
        layer = self.block.beside
        return gated_residual(
            x,
            self.told,
            first=self.first,
            beside=None if beside is None or layer is None else layer(concat_elu(beside)),
            dropout=_kept,
            gates=self.gates,
        )


class _PixelResidual:
    """A residual block of `ul`."""

    def __init__(self, block: GatedResidual, num_samples: int, width: int, condition: Tensor | None) -> None:
        assert block.beside is not None
        self.first, self.gates = (_PixelConv(conv, num_samples, width) for conv in (block.first, block.gates))
        self.beside, self.bias = block.beside.weight[:, :, 0, 0].T.contiguous(), block.beside.bias
        self.told = block.told(condition)

    def start_row(self) -> None:
        """Start the next row of both layers."""
        self.first.start_row()
        self.gates.start_row()

    def __call__(self, x: Tensor, j: int, beside: Tensor) -> Tensor:
        """Features (N, w) of pixel `j` to the same shape."""
        return gated_residual(
            x,
            self.told,
            first=functools.partial(self.first.passed, j),
            beside=torch.addmm(self.bias, concat_elu(beside), self.beside),
            dropout=_kept,
            gates=functools.partial(self.gates.passed, j),
        )


def _kept(x: Tensor) -> Tensor:
    """Nothing is dropped when images are drawn."""
    return x
