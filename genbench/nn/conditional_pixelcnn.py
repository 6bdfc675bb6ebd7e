"""Gated PixelCNN over a grid of codes given a map of features: p(codes | s).

The features enter the gates of every layer of both stacks, y = tanh(W_f * x + V_f * s) . sigmoid(W_g * x + V_g * s)
with 1x1 convolutions V (van den Oord et al. 2016, 1606.05328, Sec. 2.3). They are not masked: each place may
know all of s. Symbols: `B H W` grid, `K` levels, `F` features of the condition, `r` reach of a kernel to either side,
`v` and `h` features of the two stacks, `w` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.nn._categorical_head import categorical_log_prob, categorical_nll, draw
from genbench.nn._gated_pixelcnn_cache import SAMPLES_AT_ONCE
from genbench.nn.gated_pixelcnn import GatedLayer, GatedPixelCNNStack, gated


class ConditionalPixelCNN(nn.Module):
    """p(codes | s) = prod over rows and columns, in this order, of a softmax over all levels.

    Args:
        num_levels: K; codes run over 0 .. K-1, and their numbers mean nothing.
        condition_width: F.
        width: w.
        num_layers: layers; the receptive field reaches `num_layers * (kernel_size // 2)` places.
        kernel_size: odd width of the kernels, 3 or more.
    """

    def __init__(self, *, num_levels: int, condition_width: int, width: int, num_layers: int, kernel_size: int) -> None:
        super().__init__()
        self.stack = GatedPixelCNNStack(
            num_channels=1,
            num_levels=num_levels,
            width=width,
            num_layers=num_layers,
            kernel_size=kernel_size,
            inputs="categorical",
        )
        entries = [nn.Conv2d(condition_width, 4 * width, 1, bias=False) for _ in range(num_layers)]
        self.entries = cast("Sequence[nn.Conv2d]", nn.ModuleList(entries))  # V of `v` and `h`, a layer each

    def forward(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Logits of every place given those before it: (B, K, H, W) for codes (B, H, W) and s (B, F, H, W)."""
        logits = self._features(codes, condition) @ self.stack.out_weight[0].T + self.stack.out_bias[0]
        return logits.permute(0, 3, 1, 2)

    def log_prob(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Log-probability of codes (B, H, W) given s (B, F, H, W): (B,) nats."""
        picked = categorical_log_prob(*self._head_arguments(codes, condition))
        return picked.view(len(codes), -1).sum(1, dtype=torch.float64).to(picked.dtype)

    def mean_nll(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Minus the mean of `log_prob` over the batch, a scalar in nats; cheaper to differentiate."""
        return categorical_nll(*self._head_arguments(codes, condition)) / len(codes)

    @torch.no_grad()
    def sample(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """Draw one grid for each map of features (N, F, H, W): (N, H, W) int64; every feature is computed once."""
        both = (condition, _uniforms(condition, generator))
        chunks = zip(*(tensor.split(SAMPLES_AT_ONCE) for tensor in both), strict=True)
        return torch.cat([_sample_chunk(self, *chunk) for chunk in chunks])

    @torch.no_grad()
    def sample_naive(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """Draw the same as `sample`, with one pass over the whole grid for each place."""
        uniforms = _uniforms(condition, generator)
        codes = torch.zeros_like(uniforms, dtype=torch.int64)
        for i in range(codes.shape[1]):
            for j in range(codes.shape[2]):
                codes[:, i, j] = draw(self(codes, condition)[:, :, i, j], uniforms[:, i, j])
        return codes

    def _features(self, codes: Tensor, condition: Tensor) -> Tensor:
        v = h = self._embedded(codes)
        skip = condition.new_zeros(())
        for number, (layer, entry) in enumerate(zip(self.layers, self.entries, strict=True)):
            told_v, told_h = entry(condition).chunk(2, dim=1)  # (B, 2w, H, W) each
            above = F.pad(v, (0, 0, layer.reach, layer.own_row - 1))
            v_gates = layer.vertical(above) + told_v
            y = gated(layer.horizontal(h) + layer.across(v_gates) + told_h)
            v, h = gated(v_gates), self._passed_on(number, y, h)
            skip = skip + layer.skip(y)
        return self._last_features(skip).permute(0, 2, 3, 1)  # (B, H, W, S)

    @property
    def layers(self) -> Sequence[GatedLayer]:
        """All layers, the first included."""
        return [self.stack.first, *self.stack.later]

    def _passed_on(self, number: int, y: Tensor, h: Tensor) -> Tensor:
        """Next input of the horizontal stack; that of the first layer is not added, it holds the place itself."""
        if number == len(self.stack.residuals):
            return h
        onward: Tensor = self.stack.residuals[number](y)
        return onward if number == 0 else onward + h

    def _last_features(self, skip: Tensor) -> Tensor:
        features: Tensor = F.relu(self.stack.hidden(F.relu(skip)))
        return features

    def _embedded(self, codes: Tensor) -> Tensor:
        table = self.stack.levels.rows(1)[0]
        return F.embedding(codes, table).movedim(-1, 1)

    def _head_arguments(self, codes: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self._features(codes, condition).flatten(0, 2).unsqueeze(1)  # (B*H*W, 1, S)
        return features, self.stack.out_weight, self.stack.out_bias, codes.reshape(-1, 1)


class _Progress:
    """Inputs of every layer as far as they are known: rows above, and places to the left in the current row."""

    def __init__(self, model: ConditionalPixelCNN, condition: Tensor) -> None:
        self.model = model
        self.layers = model.layers
        self.told = [entry(condition).chunk(2, dim=1) for entry in model.entries]
        self.reach = self.layers[0].reach
        N, _, H, W = condition.shape
        zeros = condition.new_zeros
        widths = [layer.vertical.in_channels for layer in self.layers]
        self.above = [zeros(N, width, self.reach + H, W) for width in widths]
        self.left = [zeros(self.reach + W, N, width) for width in widths]
        self.gates = [zeros(W, N, layer.across.out_channels) for layer in self.layers]
        self.taps = [layer.horizontal.masked_weight[:, :, 0].permute(2, 1, 0).contiguous() for layer in self.layers]
        self.skips = [layer.skip.masked_weight[:, :, 0, 0] for layer in self.layers]
        self.residuals = [residual.masked_weight[:, :, 0, 0] for residual in model.stack.residuals]

    def start_row(self, i: int) -> None:
        """Take row `i` of the vertical stack through all layers, and what it and s tell the horizontal one."""
        for number, layer in enumerate(self.layers):
            told_v, told_h = (told[:, :, i : i + 1] for told in self.told[number])
            seen = self.above[number][:, :, i : i + layer.vertical.kernel_size[0]]
            v_gates = F.conv2d(seen, layer.vertical.weight, layer.vertical.bias, padding=(0, self.reach)) + told_v
            self.gates[number] = (layer.across(v_gates) + told_h)[:, :, 0].permute(2, 0, 1) + layer.horizontal.bias
            self.left[number].zero_()
            if number + 1 < len(self.layers):
                self.above[number + 1][:, :, self.reach + i] = gated(v_gates)[:, :, 0]

    def logits(self, j: int) -> Tensor:
        """Logits (N, K) of place `j` of the row, once the places before it are put."""
        stack, skip = self.model.stack, self.gates[0].new_zeros(())
        here = self.reach + j
        for number, layer in enumerate(self.layers):
            left = self.left[number][j : here + 1]  # (r + 1, N, I)
            y = gated(self.gates[number][j] + torch.bmm(left, self.taps[number]).sum(0))
            skip = skip + F.linear(y, self.skips[number], layer.skip.bias)
            if number + 1 < len(self.layers):
                onward = F.linear(y, self.residuals[number], stack.residuals[number].bias)
                self.left[number + 1][here] = onward if number == 0 else onward + self.left[number][here]
        hidden = F.relu(F.linear(F.relu(skip), stack.hidden.masked_weight[:, :, 0, 0], stack.hidden.bias))
        return hidden @ stack.out_weight[0].T + stack.out_bias[0]

    def put(self, i: int, j: int, codes: Tensor) -> None:
        """Take the codes (N,) drawn for place `j` of row `i`."""
        e = F.embedding(codes, self.model.stack.levels.rows(1)[0])
        self.left[0][self.reach + j] = e
        self.above[0][:, :, self.reach + i, j] = e


def _sample_chunk(model: ConditionalPixelCNN, condition: Tensor, uniforms: Tensor) -> Tensor:
    codes = torch.zeros_like(uniforms, dtype=torch.int64)
    progress = _Progress(model, condition)
    for i in range(codes.shape[1]):
        progress.start_row(i)
        for j in range(codes.shape[2]):
            codes[:, i, j] = draw(progress.logits(j), uniforms[:, i, j])
            progress.put(i, j, codes[:, i, j])
    return codes


def _uniforms(condition: Tensor, generator: Generator) -> Tensor:
    N, _, H, W = condition.shape
    return torch.rand((N, H, W), generator=generator, device=condition.device)
