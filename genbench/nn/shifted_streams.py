"""Two streams of shifted convolutions on grids that shrink and grow again: features that see the pixels before theirs.

The stream `u` sees the rows above a pixel, the stream `ul` also those on its left (Salimans et al. 2017, 1701.05517,
Sec. 2.3 and 2.4, Fig. 2). No weight is masked: images are shifted so that a kernel of 2x3 ends at its pixel's row, one
of 2x2 at the pixel itself. Gated residual blocks stand on every grid; from one grid to the next a step of two halves
it, and on the way back every block is told what a block of the way there had found.

Symbols: `B C H W` images, `w` width, `u` and `ul` the streams, `I` and `O` inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from genbench.nn.weight_norm import NormalisedConv2d, NormalisedUpsampling2d

GATES_SCALE = 0.1
"""Of what a block adds at the start, so that a deep stack starts near its first layer."""


class Streams(NamedTuple):
    """Features of both streams, (B, w, H, W) each."""

    u: Tensor
    ul: Tensor


def down_shifted(num_inputs: int, num_outputs: int, *, stride: int = 1, scale: float = 1.0) -> NormalisedConv2d:
    """A 2x3 kernel over the pixel's row and the one above."""
    return NormalisedConv2d(num_inputs, num_outputs, (2, 3), padding=(1, 1, 1, 0), stride=stride, scale=scale)


def down_right_shifted(num_inputs: int, num_outputs: int, *, stride: int = 1, scale: float = 1.0) -> NormalisedConv2d:
    """A 2x2 kernel over the pixel, those on its left and above it, and the one between these."""
    return NormalisedConv2d(num_inputs, num_outputs, (2, 2), padding=(1, 0, 1, 0), stride=stride, scale=scale)


def concat_elu(x: Tensor) -> Tensor:
    """Both elu(x) and elu(-x), side by side along the channels."""
    both: Tensor = _ConcatELU.apply(x)
    return both


def gated_residual(
    x: Tensor,
    told: Tensor | None,
    *,
    first: Callable[[Tensor], Tensor],
    beside: Tensor | None,
    dropout: Callable[[Tensor], Tensor],
    gates: Callable[[Tensor], Tensor],
) -> Tensor:
    """The block's input and what it adds: x + a sigm(b) with (a, b) = gates(first(x) + beside) + told.

    Every layer reads a `concat_elu`.

    Args:
        x: (B, w, ...).
        told: what a condition adds to the gates, (B, 2w, ...).
        first: layer to w features.
        beside: what the other stream or a short-cut adds to these.
        dropout: of what the gates read.
        gates: layer to 2w features.
    """
    h = first(concat_elu(x))
    if beside is not None:
        h = h + beside
    both = gates(dropout(concat_elu(h)))
    if told is not None:
        both = both + told
    a, b = both.chunk(2, dim=1)
    return x + a * torch.sigmoid(b)


class GatedResidual(nn.Module):
    """A gated residual block of one stream.

    Args:
        width: w.
        shifted: makes its convolutions, `down_shifted` or `down_right_shifted`.
        num_beside: features that it is told beside its input.
        dropout: share of features dropped in training.
        condition_width: length of vectors of conditions; None is no condition.
    """

    def __init__(
        self,
        width: int,
        *,
        shifted: Callable[..., NormalisedConv2d],
        num_beside: int,
        dropout: float,
        condition_width: int | None,
    ) -> None:
        super().__init__()
        self.first = shifted(2 * width, width)
        self.beside = NormalisedConv2d(2 * num_beside, width) if num_beside else None
        self.dropout = nn.Dropout(dropout)
        self.gates = shifted(2 * width, 2 * width, scale=GATES_SCALE)
        self.entry = None if condition_width is None else nn.Linear(condition_width, 2 * width, bias=False)

    def told(self, condition: Tensor | None) -> Tensor | None:
        """What a condition (B, D) adds to the gates at every pixel: (B, 2w)."""
        return None if condition is None or self.entry is None else self.entry(condition)

    def forward(self, x: Tensor, beside: Tensor | None, condition: Tensor | None) -> Tensor:
        """(B, w, H, W) to the same shape, given (B, num_beside, H, W) and a condition (B, D)."""
        told = self.told(condition)
        return gated_residual(
            x,
            None if told is None else told[:, :, None, None],
            first=self.first,
            beside=None if beside is None or self.beside is None else self.beside(concat_elu(beside)),
            dropout=self.dropout,
            gates=self.gates,
        )


class Block(nn.Module):
    """A residual block of each stream: `u` is told of short-cuts, `ul` of `u` and of short-cuts."""

    def __init__(self, width: int, *, shortcut: bool, dropout: float, condition_width: int | None) -> None:
        super().__init__()
        told_u, told_ul = (width, 2 * width) if shortcut else (0, width)
        self.u = GatedResidual(
            width, shifted=down_shifted, num_beside=told_u, dropout=dropout, condition_width=condition_width
        )
        self.ul = GatedResidual(
            width, shifted=down_right_shifted, num_beside=told_ul, dropout=dropout, condition_width=condition_width
        )

    def forward(self, x: Streams, shortcut: Streams | None, condition: Tensor | None) -> Streams:
        """Both streams, one block further."""
        u = self.u(x.u, None if shortcut is None else shortcut.u, condition)
        beside = u if shortcut is None else torch.cat([u, shortcut.ul], dim=1)
        return Streams(u, self.ul(x.ul, beside, condition))


class Grid(nn.Module):
    """The blocks of one grid: those of the way to coarser grids, what comes back from there, those of the way back.

    Args:
        width: w.
        num_blocks: of the way there; there is one more on the way back, which the coarsest grid does without.
        coarser: the next grid, of half as many rows and columns; None is the coarsest.
        dropout: share of features dropped in training.
        condition_width: length of vectors of conditions; None is no condition.
    """

    def __init__(
        self, width: int, *, num_blocks: int, coarser: Grid | None, dropout: float, condition_width: int | None
    ) -> None:
        super().__init__()

        def blocks(number: int, *, shortcut: bool) -> Sequence[Block]:
            made = [
                Block(width, shortcut=shortcut, dropout=dropout, condition_width=condition_width) for _ in range(number)
            ]
            return cast("Sequence[Block]", nn.ModuleList(made))

        self.there = blocks(num_blocks, shortcut=False)
        self.coarser = None if coarser is None else Coarser(width, coarser)
        self.back = blocks(num_blocks if coarser is None else num_blocks + 1, shortcut=True)

    def forward(self, x: Streams, condition: Tensor | None) -> Streams:
        """Both streams, (B, w, H, W) each, after all blocks of this grid and of coarser ones."""
        found = [x]
        for block in self.there:
            found.append(block(found[-1], None, condition))
        x = found.pop() if self.coarser is None else self.coarser(found[-1], condition)
        for block in self.back:
            x = block(x, found.pop(), condition)
        return x


class Coarser(nn.Module):
    """To a grid of half as many rows and columns, through it, and back."""

    def __init__(self, width: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.shrink_u = down_shifted(width, width, stride=2)
        self.shrink_ul = down_right_shifted(width, width, stride=2)
        self.grow_u = NormalisedUpsampling2d(width, columns=3)
        self.grow_ul = NormalisedUpsampling2d(width, columns=2)

    def forward(self, x: Streams, condition: Tensor | None) -> Streams:
        """Both streams, (B, w, H, W) each; a grid of an odd size ends beyond the image."""
        H, W = x.u.shape[2:]
        small = self.grid(Streams(self.shrink_u(x.u), self.shrink_ul(x.ul)), condition)
        return Streams(self.grow_u(small.u)[:, :, :H, :W], self.grow_ul(small.ul)[:, :, :H, :W])


class ShiftedStreams(nn.Module):
    """Images to features of every pixel that see the pixels before it in raster order, all of those in reach.

    Args:
        num_channels: C.
        width: w.
        num_blocks: residual blocks of each stream on every grid, on the way there.
        num_halvings: grids beside that of the image.
        dropout: share of features dropped in training.
        condition_width: length of vectors of conditions; None is no condition.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        width: int,
        num_blocks: int,
        num_halvings: int,
        dropout: float = 0.0,
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        self.num_channels, self.width = num_channels, width
        seen = num_channels + 1
        self.above_u = NormalisedConv2d(seen, width, (2, 3), padding=(1, 1, 2, -1))  # down-shifted by a row
        self.above_ul = NormalisedConv2d(seen, width, (1, 3), padding=(1, 1, 1, -1))  # the same
        self.left_ul = NormalisedConv2d(seen, width, (2, 1), padding=(1, -1, 1, 0))  # shifted to the right
        grid: Grid | None = None
        for _ in range(num_halvings + 1):
            grid = Grid(width, num_blocks=num_blocks, coarser=grid, dropout=dropout, condition_width=condition_width)
        assert grid is not None
        self.grid = grid

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features (B, w, H, W) for images (B, C, H, W) in [-1, 1] and conditions (B, D)."""
        seen = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # tells the border, padded with zeros, from grey
        seen = seen.contiguous(memory_format=torch.channels_last)
        streams = Streams(self.above_u(seen), self.above_ul(seen) + self.left_ul(seen))
        features: Tensor = F.elu(self.grid(streams, condition).ul)
        return features


class _Saved(FunctionCtx):
    saved_tensors: tuple[Tensor]


class _ConcatELU(torch.autograd.Function):
    """As `F.elu` of both signs, which takes half of all time of training on a CPU, several times faster there.

    `exp(x) - 1` in place of `expm1` errs by the rounding of 1 at most.
    """

    @staticmethod
    def forward(ctx: _Saved, x: Tensor) -> Tensor:
        y = torch.cat([x, -x], dim=1)
        y = y.clamp_max(0.0).exp_().sub_(1.0).add_(y.clamp_min_(0.0))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: _Saved, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        plus, minus = y.clamp_max(0.0).add_(1.0).mul_(grads[0]).chunk(2, dim=1)  # elu' = 1 + min(elu, 0)
        return plus - minus
