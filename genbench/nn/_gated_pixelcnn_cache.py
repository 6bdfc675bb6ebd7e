"""Incremental sampling of a gated PixelCNN: every feature is computed once.

The vertical stack advances by a row when the row above it is complete, the horizontal stack by a pixel, and
within a pixel by a group of channels. Buffers are allocated once; the work in Python is per sub-pixel and
layer, never per sample. Symbols: `N` samples, `r` reach, `w` width, `I` input features of a layer, `L` layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.nn._categorical_head import draw

SAMPLES_AT_ONCE = 512
"""Samples that advance together; more of them overflow the processor's cache and gain nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Masked weights of one layer as matrices from inputs to outputs, outputs grouped by channel."""

    vertical: Tensor
    """(2w, I, rows, kernel)."""
    vertical_bias: Tensor
    across: Tensor
    """(2w, 2w), from the gates of the vertical stack."""
    horizontal_bias: Tensor
    left: Tensor
    """(r, I, 2w), from the pixels on the left."""
    here: Tensor
    """(C, I, 2w / C), from the pixel itself."""
    skip: Tensor
    """(C, w, S)."""
    skip_bias: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackWeights:
    """All weights that sampling needs."""

    levels: Tensor
    """(C, K, F) features of the levels of each channel."""
    layers: tuple[LayerWeights, ...]
    residuals: tuple[Tensor, ...]
    """(C, w, w / C) each, from one layer to the next."""
    residual_biases: tuple[Tensor, ...]
    hidden: Tensor
    """(C, C*S, S)."""
    hidden_bias: Tensor
    out: Tensor
    """(C, S, K)."""
    out_bias: Tensor


class Told(NamedTuple):
    """What a condition adds to the gates of one layer, at every pixel."""

    v: Tensor
    """(N, 2w), to those of the vertical stack."""
    h: Tensor
    """(N, 2w), to those of the horizontal stack."""


def sample_cached(weights: StackWeights, uniforms: Tensor, told: Sequence[Told] = ()) -> Tensor:
    """Invert the distribution at uniforms (N, C, H, W) in raster order: codes of the same shape, int64.

    Args:
        weights: of the network.
        uniforms: in [0, 1), one for each level.
        told: for each layer, its outputs grouped as those of the weights; empty without a condition.
    """
    starts = range(0, max(1, len(uniforms)), SAMPLES_AT_ONCE)
    chunks = [slice(start, start + SAMPLES_AT_ONCE) for start in starts]
    return torch.cat(
        [_sample_chunk(weights, uniforms[rows], [Told(part.v[rows], part.h[rows]) for part in told]) for rows in chunks]
    )


def _sample_chunk(weights: StackWeights, uniforms: Tensor, told: Sequence[Told]) -> Tensor:
    N, C, H, W = uniforms.shape
    codes = torch.zeros(uniforms.shape, dtype=torch.int64, device=uniforms.device)
    vertical, horizontal = _VerticalStack(weights, N, W, told), _HorizontalStack(weights, N, W)
    for i in range(H):
        vertical.advance(horizontal.from_above)
        for j in range(W):
            horizontal.start_pixel(j)
            for c in range(C):
                level = draw(horizontal.logits(j, c), uniforms[:, c, i, j])
                horizontal.put(j, c, level)
                codes[:, c, i, j] = level
        vertical.put_row(horizontal.row)
    return codes


class _VerticalStack:
    """The rows that the next row of each layer needs, padded with zeros on all sides."""

    def __init__(self, weights: StackWeights, num_samples: int, width: int, told: Sequence[Told]) -> None:
        self.layers = weights.layers
        self.conditions: Sequence[Told | None] = told or [None] * len(self.layers)
        self.width = width
        self.rows = [_rows(layer, num_samples, width) for layer in self.layers]  # of (N, I, rows, W + 2r)

    def advance(self, from_above: Tensor) -> None:
        """Compute the next row of every layer and write what it tells the horizontal stack."""
        below = [*self.rows[1:], None]
        parts = zip(self.layers, self.rows, below, from_above, self.conditions, strict=True)
        for layer, rows, next_rows, told, condition in parts:
            gates = F.conv2d(rows, layer.vertical, layer.vertical_bias)[:, :, 0]  # (N, 2w, W)
            if condition is not None:
                gates = gates + condition.v[:, :, None]
            torch.add(gates.permute(2, 0, 1) @ layer.across, layer.horizontal_bias, out=told)
            if condition is not None:
                told += condition.h
            if next_rows is not None:
                f, g = gates.chunk(2, dim=1)
                self._append(next_rows, torch.tanh(f) * torch.sigmoid(g))

    def put_row(self, row: Tensor) -> None:
        """Take the features (W, N, I) of a complete row of codes."""
        self._append(self.rows[0], row.permute(1, 2, 0))

    def _append(self, rows: Tensor, row: Tensor) -> None:
        rows[:, :, :-1] = rows[:, :, 1:].clone()
        margin = (rows.shape[3] - self.width) // 2
        rows[:, :, -1, margin : margin + self.width] = row


class _HorizontalStack:
    """Features of the current row, pixel after pixel; the first `r` places are the border."""

    def __init__(self, weights: StackWeights, num_samples: int, width: int) -> None:
        self.weights = weights
        first, later = weights.layers[0], weights.layers[1:]
        self.reach, num_inputs, num_gates = first.left.shape
        places, L, w = width + self.reach, len(weights.layers), num_gates // 2
        zeros = first.left.new_zeros
        self.from_above = zeros(L, width, num_samples, num_gates)
        self.e = zeros(places, num_samples, num_inputs)
        self.h = zeros(L - 1, places, num_samples, w)  # inputs of all layers but the first
        self.gates = zeros(L, num_samples, num_gates)
        self.y = zeros(num_samples, L, w)
        self.skip = zeros(num_samples, weights.hidden.shape[1])
        self.later_left = torch.stack([layer.left for layer in later], dim=1) if later else None  # (r, L-1, w, 2w)
        self.to_skip = torch.cat([layer.skip for layer in weights.layers], dim=1)  # (C, L*w, S)
        self.skip_bias = torch.stack([layer.skip_bias for layer in weights.layers]).sum(0)

    @property
    def row(self) -> Tensor:
        """Features of the codes of the current row: (W, N, I)."""
        return self.e[self.reach :]

    def start_pixel(self, j: int) -> None:
        """Gather what rows above and pixels on the left say, for all layers and channels at once."""
        self.gates.copy_(self.from_above[:, j])
        for tap, left in enumerate(self.weights.layers[0].left):
            self.gates[0].addmm_(self.e[j + tap], left)
            if self.later_left is not None:
                self.gates[1:].baddbmm_(self.h[:, j + tap], self.later_left[tap])

    def logits(self, j: int, c: int) -> Tensor:
        """Logits (N, K) of channel `c` of pixel `j`, given the channels before it."""
        place = j + self.reach
        inputs = [self.e[place], *self.h[:, place]]
        for number in range(len(inputs)):
            self._gate(number, c, inputs[number])
            if number + 1 < len(inputs):
                self._pass_on(number, c, inputs)
        skip = torch.addmm(self.skip_bias[c], self.y.flatten(1), self.to_skip[c])
        _columns(self.skip, c, skip.shape[1]).copy_(skip.relu_())
        hidden = torch.addmm(self.weights.hidden_bias[c], self.skip, self.weights.hidden[c]).relu_()
        return torch.addmm(self.weights.out_bias[c], hidden, self.weights.out[c])

    def put(self, j: int, c: int, level: Tensor) -> None:
        """Take the level (N,) drawn for channel `c` of pixel `j`."""
        table = self.weights.levels[c]
        _columns(self.e[j + self.reach], c, table.shape[1]).copy_(table[level])

    def _gate(self, number: int, c: int, h: Tensor) -> None:
        """One group of one layer: its gated features."""
        here = self.weights.layers[number].here[c]
        gates = torch.addmm(_columns(self.gates[number], c, here.shape[1]), h, here)
        f, g = gates.chunk(2, dim=1)
        torch.mul(f.tanh(), g.sigmoid(), out=_columns(self.y[:, number], c, f.shape[1]))

    def _pass_on(self, number: int, c: int, inputs: list[Tensor]) -> None:
        """One group of the input of the next layer."""
        residual = self.weights.residuals[number][c]
        target = _columns(inputs[number + 1], c, residual.shape[1])
        torch.addmm(self.weights.residual_biases[number][c], self.y[:, number], residual, out=target)
        if number > 0:  # the input of the first layer is not added: it holds the pixel itself
            target += _columns(inputs[number], c, residual.shape[1])


def _rows(layer: LayerWeights, num_samples: int, width: int) -> Tensor:
    _, num_inputs, num_rows, kernel = layer.vertical.shape
    return layer.vertical.new_zeros(num_samples, num_inputs, num_rows, width + kernel - 1)


def _columns(x: Tensor, group: int, size: int) -> Tensor:
    return x[:, group * size : (group + 1) * size]
