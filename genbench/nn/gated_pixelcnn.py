"""Gated PixelCNN as a distribution over grids of integers: pixels, or the codes of an autoencoder.

The vertical stack reads whole rows above, the horizontal stack the pixels to the left and, at the pixel
itself, the channels that come before: together they see everything earlier, with no blind spot
(van den Oord et al. 2016, 1606.05328, Sec. 2.1-2.2). Features are split into one group per channel; masks
between groups give the order of channels within a pixel. Symbols: `B C H W` grid, `K` levels, `r` reach of a
kernel to either side, `e` embedded levels, `v` and `h` features of the two stacks, `w` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.nn._categorical_head import categorical_log_prob, categorical_nll, draw
from genbench.nn._gated_pixelcnn_cache import LayerWeights, StackWeights, Told, sample_cached

Mask = Literal["A", "B"]
"""What a group may see at its own pixel: `A` the groups before it, `B` also itself."""
CATEGORICAL_FEATURES = 24
"""Length of the learned vector of an unordered level."""
OUTPUT_SCALE = 1.0
"""Of the first weights before the softmax: of order one, a small step of the features can favour one level."""


class OrderedLevels(nn.Module):
    """Fixed features of an ordered level k: its value in [-1, 1], a constant, and waves of doubling frequency.

    A wave pair makes the copy of an exact level a linear map: sum_j cos(omega_j (k - l)) peaks at k = l.
    The constant tells the border, padded with zeros, from a dark pixel.
    """

    table: Tensor

    def __init__(self, num_levels: int) -> None:
        super().__init__()
        level = torch.arange(num_levels)
        num_octaves = max(1, (num_levels - 1).bit_length())  # the shortest wave spans four levels or fewer
        omega = torch.pi / num_levels * 2.0 ** torch.arange(num_octaves)
        waves = level[:, None] * omega
        value = 2.0 * level / max(1, num_levels - 1) - 1.0
        features = [torch.ones(num_levels, 1), value[:, None], waves.cos(), waves.sin()]
        self.register_buffer("table", torch.cat(features, dim=1))  # (K, F)

    def rows(self, num_channels: int) -> Tensor:
        """The features of every level of every channel: (C, K, F)."""
        return self.table.expand(num_channels, -1, -1)


class CategoricalLevels(nn.Module):
    """Learned features of unordered levels, a table per channel."""

    def __init__(self, num_channels: int, num_levels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(num_channels, num_levels, CATEGORICAL_FEATURES))

    def rows(self, num_channels: int) -> Tensor:
        """The features of every level of every channel: (C, K, F)."""
        return self.table[:num_channels]


class MaskedConv2d(nn.Conv2d):
    """A convolution over pixels to the left and the pixel itself, where groups are masked."""

    mask: Tensor

    def __init__(self, in_groups: Tensor, out_groups: Tensor, *, mask: Mask, taps: int = 1) -> None:
        super().__init__(len(in_groups), len(out_groups), (1, taps))
        allowed = torch.ones_like(self.weight)
        seen = in_groups < out_groups[:, None] if mask == "A" else in_groups <= out_groups[:, None]
        allowed[:, :, 0, -1] = seen.float()
        self.register_buffer("mask", allowed, persistent=False)
        _start(self, allowed.sum((1, 2, 3), keepdim=True))

    @property
    def masked_weight(self) -> Tensor:
        """Weights with the forbidden ones at zero: (O, I, 1, taps)."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H, W)."""
        return F.conv2d(F.pad(x, (self.kernel_size[1] - 1, 0)), self.masked_weight, self.bias)


class GatedLayer(nn.Module):
    """One layer of both stacks (Fig. 2): y = tanh(W_f * x) . sigmoid(W_g * x) in each."""

    def __init__(
        self, in_groups: Tensor, out_groups: Tensor, head_groups: Tensor, *, kernel_size: int, mask: Mask
    ) -> None:
        super().__init__()
        self.reach = kernel_size // 2
        self.own_row = 0 if mask == "A" else 1  # `v` of the first layer knows nothing of the row it stands in
        width = len(out_groups)
        rows = self.reach + self.own_row
        self.vertical = nn.Conv2d(len(in_groups), 2 * width, (rows, kernel_size), padding=(0, self.reach))
        self.across = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.horizontal = MaskedConv2d(in_groups, out_groups.repeat(2), mask=mask, taps=self.reach + 1)
        self.skip = MaskedConv2d(out_groups, head_groups, mask="B")
        for conv in (self.vertical, self.across):
            _start(conv, torch.tensor(conv.weight[0].numel()))

    def forward(self, v: Tensor, h: Tensor, told: Told | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Gates of the next `v`, (B, 2w, H, W), features for the next `h`, (B, w, H, W), and what goes to the head."""
        above = F.pad(v, (0, 0, self.reach, self.own_row - 1))  # without its own row the last one is dropped
        v_gates = self.vertical(above)  # (B, 2w, H, W)
        if told is None:
            y = gated(self.horizontal(h) + self.across(v_gates))
        else:
            v_gates = v_gates + told.v[:, :, None, None]
            y = gated(self.horizontal(h) + self.across(v_gates) + told.h[:, :, None, None])
        return v_gates, y, self.skip(y)


class GatedPixelCNNStack(nn.Module):
    """p(codes) = prod over rows, columns and channels, in this order, of a softmax over all levels.

    Args:
        num_channels: C; `width` must be a multiple.
        num_levels: K; codes run over 0 .. K-1.
        width: features of each stack.
        num_layers: layers; the receptive field reaches `num_layers * (kernel_size // 2)` pixels.
        kernel_size: odd width of the kernels, 3 or more.
        head_width: features of each channel before its softmax.
        inputs: `ordered` for pixels; `categorical` for codes whose numbers mean nothing.
        condition_width: length D of the vectors that the law is given (Eq. 4); None is a law without a condition.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_levels: int,
        width: int,
        num_layers: int,
        kernel_size: int,
        head_width: int = 32,
        inputs: Literal["ordered", "categorical"] = "ordered",
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        if width % num_channels or kernel_size % 2 == 0 or kernel_size < 3 or num_layers < 1:
            raise ValueError(
                f"expected a width that {num_channels} channels divide, an odd kernel of 3 or more and a layer, "
                f"found width {width}, kernel {kernel_size}, layers {num_layers}"
            )
        self.num_channels, self.num_levels = num_channels, num_levels
        ordered = inputs == "ordered"
        self.levels = OrderedLevels(num_levels) if ordered else CategoricalLevels(num_channels, num_levels)
        features = self.levels.rows(num_channels).detach()  # (C, K, F)
        num_features = features.shape[-1]
        groups = [torch.arange(num_channels).repeat_interleave(n) for n in (num_features, width // num_channels)]
        head_groups = torch.arange(num_channels).repeat_interleave(head_width)
        self.first = GatedLayer(groups[0], groups[1], head_groups, kernel_size=kernel_size, mask="A")
        later = [
            GatedLayer(groups[1], groups[1], head_groups, kernel_size=kernel_size, mask="B")
            for _ in range(num_layers - 1)
        ]
        self.later = cast("Sequence[GatedLayer]", nn.ModuleList(later))
        residuals = [MaskedConv2d(groups[1], groups[1], mask="B") for _ in later]
        self.residuals = cast("Sequence[MaskedConv2d]", nn.ModuleList(residuals))  # between layers
        self.hidden = MaskedConv2d(head_groups, head_groups, mask="B")
        mix = torch.randn(num_channels, num_features, head_width) * (OUTPUT_SCALE / num_features**0.5)
        self.out_weight = nn.Parameter(features @ mix)  # (C, K, S): levels that look alike start with like logits
        self.out_bias = nn.Parameter(torch.zeros(num_channels, num_levels))
        sizes = [] if condition_width is None else [condition_width] * num_layers
        entries = [nn.Linear(size, 4 * width, bias=False) for size in sizes]
        self.entries = cast("Sequence[nn.Linear]", nn.ModuleList(entries))  # V of `v` and of `h`, a layer each

    def start_from(self, codes: Tensor) -> None:
        """Set the output biases to the log-frequencies of the levels in (B, C, H, W), each counted once more."""
        for c in range(self.num_channels):
            counts = codes[:, c].flatten().bincount(minlength=self.num_levels) + 1
            self.out_bias.data[c] = (counts / counts.sum()).log()

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits of every sub-pixel given those before it: (B, K, C, H, W) for codes (B, C, H, W).

        Conditions are vectors (B, D), here and below; they are wanted where `condition_width` is set.
        """
        logits = torch.einsum("bhwcs,cks->bkchw", self._features(codes, condition), self.out_weight)
        return logits + self.out_bias.T[:, :, None, None]

    def log_prob(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Log-probability of codes (B, C, H, W): (B,) nats."""
        picked = categorical_log_prob(*self._head_arguments(codes, condition))
        return picked.view(len(codes), -1).sum(1, dtype=torch.float64).to(picked.dtype)

    def mean_nll(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Minus the mean of `log_prob` over the batch, a scalar in nats; cheaper to differentiate."""
        return categorical_nll(*self._head_arguments(codes, condition)) / len(codes)

    @torch.no_grad()
    def sample(
        self, num_samples: int, height: int, width: int, *, generator: Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Draw (N, C, H, W) int64; every feature is computed once, as soon as what it needs is drawn."""
        uniforms = self._uniforms(num_samples, height, width, generator)
        if condition is None:
            return sample_cached(self._weights(), uniforms)
        order = _gate_order(self.first.skip.in_channels, self.num_channels, device=condition.device)
        told = [Told(part.v, part.h[:, order]) for part in self._told(condition) if part is not None]
        return sample_cached(self._weights(), uniforms, told)

    @torch.no_grad()
    def sample_naive(
        self, num_samples: int, height: int, width: int, *, generator: Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Draw the same as `sample`, with one pass over the whole grid for each sub-pixel."""
        uniforms = self._uniforms(num_samples, height, width, generator)
        codes = torch.zeros(uniforms.shape, dtype=torch.int64, device=uniforms.device)
        for place in torch.cartesian_prod(*map(torch.arange, (height, width, self.num_channels))).tolist():
            i, j, c = place
            codes[:, c, i, j] = draw(self(codes, condition)[:, :, c, i, j], uniforms[:, c, i, j])
        return codes

    def _features(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        e = self._embedded(codes)
        first, *later = self._told(condition)
        v_gates, y, skip = self.first(e, e, first)
        h: Tensor | float = 0.0  # not `e`: past its mask the first layer must not see the pixel itself
        for residual, layer, told in zip(self.residuals, self.later, later, strict=True):
            h = residual(y) + h
            v_gates, y, more = layer(gated(v_gates), h, told)
            skip = skip + more
        hidden = F.relu(self.hidden(F.relu(skip)))
        features: Tensor = hidden.permute(0, 2, 3, 1).unflatten(3, (self.num_channels, -1))
        return features  # (B, H, W, C, S)

    def _told(self, condition: Tensor | None) -> list[Told | None]:
        """What a condition (B, D) adds to the gates of every layer; nothing where there is none."""
        if condition is None:
            return [None] * (1 + len(self.later))
        return [Told(*entry(condition).chunk(2, dim=1)) for entry in self.entries]

    def _embedded(self, codes: Tensor) -> Tensor:
        table = self.levels.rows(self.num_channels)
        offset = torch.arange(self.num_channels, device=codes.device) * self.num_levels
        e: Tensor = F.embedding(codes.permute(0, 2, 3, 1) + offset, table.reshape(-1, table.shape[-1]))
        return e.flatten(3).permute(0, 3, 1, 2)  # (B, C*F, H, W), channels last in memory

    def _head_arguments(self, codes: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self._features(codes, condition).flatten(0, 2)  # (B*H*W, C, S)
        targets = codes.permute(0, 2, 3, 1).reshape(-1, self.num_channels)
        return features, self.out_weight, self.out_bias, targets

    def _uniforms(self, num_samples: int, height: int, width: int, generator: Generator) -> Tensor:
        shape = (num_samples, self.num_channels, height, width)
        return torch.rand(shape, generator=generator, device=self.out_bias.device)

    def _weights(self) -> StackWeights:
        return StackWeights(
            levels=self.levels.rows(self.num_channels),
            layers=tuple(_layer_weights(layer, self.num_channels) for layer in (self.first, *self.later)),
            residuals=tuple(_by_group(residual, self.num_channels) for residual in self.residuals),
            residual_biases=tuple(_bias(residual).unflatten(0, (self.num_channels, -1)) for residual in self.residuals),
            hidden=_by_group(self.hidden, self.num_channels),
            hidden_bias=_bias(self.hidden).unflatten(0, (self.num_channels, -1)),
            out=self.out_weight.transpose(1, 2).contiguous(),
            out_bias=self.out_bias,
        )


def gated(gates: Tensor) -> Tensor:
    """Eq. 2, the first half of the channels through tanh, the second through the sigmoid: (B, w, H, W)."""
    f, g = gates.chunk(2, dim=1)
    return torch.tanh(f) * torch.sigmoid(g)


def _start(conv: nn.Conv2d, fan_in: Tensor) -> None:
    """Weights that keep the variance of unmasked inputs."""
    conv.weight.data = torch.randn_like(conv.weight) * fan_in.rsqrt()
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _gate_order(width: int, num_channels: int, *, device: torch.device) -> Tensor:
    """Places of gates in the layer when those of each channel stand side by side, its tanh half, its sigmoid half."""
    order = torch.arange(2 * width, device=device).view(2, num_channels, -1)
    return order.transpose(0, 1).flatten()  # (C, 2, w/C) taken from (2, C, w/C)


def _layer_weights(layer: GatedLayer, num_channels: int) -> LayerWeights:
    """Matrices of a layer with the outputs of each group side by side: its tanh half, its sigmoid half."""
    width = layer.skip.in_channels
    order = _gate_order(width, num_channels, device=layer.vertical.weight.device)
    taps = layer.horizontal.masked_weight[order, :, 0].permute(2, 1, 0)  # (r + 1, I, 2w)
    return LayerWeights(
        vertical=layer.vertical.weight,
        vertical_bias=_bias(layer.vertical),
        across=layer.across.weight[order, :, 0, 0].T.contiguous(),
        horizontal_bias=_bias(layer.horizontal)[order],
        left=taps[:-1].contiguous(),
        here=taps[-1].unflatten(1, (num_channels, -1)).transpose(0, 1).contiguous(),
        skip=_by_group(layer.skip, num_channels),
        skip_bias=_bias(layer.skip).unflatten(0, (num_channels, -1)),
    )


def _by_group(conv: MaskedConv2d, num_channels: int) -> Tensor:
    """A 1x1 convolution as one matrix per group of outputs: (C, I, O / C)."""
    grouped: Tensor = conv.masked_weight[:, :, 0, 0].unflatten(0, (num_channels, -1))
    return grouped.transpose(1, 2).contiguous()


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
