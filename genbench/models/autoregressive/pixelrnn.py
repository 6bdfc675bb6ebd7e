"""Autoregressive pixels by recurrent layers in two dimensions with a softmax over levels, exact probabilities.

Title: Pixel Recurrent Neural Networks.
Authors: Aaron van den Oord, Nal Kalchbrenner, Koray Kavukcuoglu.
Year: 2016. arXiv: 1601.06759.

Idea: an image is drawn pixel after pixel in raster order and, within a pixel, red before green before blue, each level
from a softmax over all levels (Eq. 1 and 2). Recurrent layers carry what was drawn over any distance:

- `row` (Sec. 3.1): row after row, a convolution of width 3 over the states of the row above joins one over the inputs
  on the left; a state sees a triangle of pixels above it.
- `diagonal` (Sec. 3.2): one layer runs from the left and one from the right, diagonal after diagonal, each state from
  those of the neighbour at its side and the one above. Rows are shifted against one another so that a diagonal is a
  column. The outputs from the right are moved down by one row before both are added, so that nothing later is seen. All
  pixels before are, but one: features behind mask A know what lies before their own pixel, so the last pixel of the row
  above is known from the first layer alone, to the pixels in its reach.

Symbols: `x` integers 0 .. levels-1; `o f i g` gates, `c h` cell and hidden states,
[o, f, i, g] = [sigm, sigm, sigm, tanh](K_ss * h_before + K_is * x), c = f c_before + i g, h = o tanh(c) (Eq. 3). `h`
also stands for the number of features of a state; each layer adds to `2h` features.

Drawing is incremental: every state is computed once, when what it needs is drawn, and the samples are those of one full
pass for each sub-pixel.

**Departures**
- `h` is rounded up to a multiple of the number of channels, so that the channels' groups of features are equal.
- Residual connections go round every layer, as in the paper; its skip connections from every layer to the output are
  left out. First states are zero.
- An input level enters as its value, a constant and sines and cosines of doubling frequency, all fixed; the paper feeds
  the value. The last 1x1 convolution maps the features of a channel to the logits of that channel only.
- On two levels, a softmax over both stands for the sigmoid of the paper, which is the same law.
- Weights start at unit gain, the output biases at the histogram of the first batch. Adam with warm-up, a cosine,
  clipping and averaged weights stands in place of RMSProp.
- `paper` has the 12 layers of h = 128 and the 1024 features before the softmax of the paper for CIFAR-10, the latter
  shared out among three channels; its batch and learning rate are ours. `smoke` and `small` are narrow and shallow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._pixel_model import PixelModel, PixelNetwork
from genbench.nn.level_softmax import LevelSoftmax
from genbench.nn.masked_conv import RELU_GAIN, CausalConv2d, IncrementalConv, channel_groups
from genbench.nn.pixel_lstm import DiagonalBiLSTM, RowLSTM
from genbench.nn.pixel_lstm_sampling import IncrementalLSTM, incremental_lstm
from genbench.nn.raster_sampling import Progress, draw_in_raster_order

Recurrence = Literal["row", "diagonal"]
FIRST_REACH = 3
"""Of the first layer, which is 7x7 (Table 1)."""


class RecurrentStack(PixelNetwork):
    """The whole network: a 7x7 convolution with mask A, recurrent layers, two 1x1 layers before the softmax (Table 1).

    Args:
        shape: (C, H, W) of the images.
        num_levels: of every sub-pixel.
        recurrence: `row` or `diagonal`.
        width: h, rounded up to a multiple of C.
        num_layers: recurrent layers.
        head_width: features of each channel before its softmax.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int,
        *,
        recurrence: Recurrence,
        width: int,
        num_layers: int,
        head_width: int,
    ) -> None:
        super().__init__()
        self.shape = shape
        C = shape[0]
        per_channel = -(-width // C)
        wide, narrow, head = (channel_groups(C, n) for n in (2 * per_channel, per_channel, head_width))
        self.softmax = LevelSoftmax(C, num_levels, head_width)
        embedded = channel_groups(C, self.softmax.num_features)
        self.first = CausalConv2d(embedded, wide, mask="A", rows_above=FIRST_REACH, reach=FIRST_REACH)
        kind = RowLSTM if recurrence == "row" else DiagonalBiLSTM
        layers = [kind(C, wide, per_channel) for _ in range(num_layers)]
        self.layers = cast("Sequence[RowLSTM | DiagonalBiLSTM]", nn.ModuleList(layers))
        ups = [CausalConv2d(narrow, wide, mask="B") for _ in range(num_layers)]
        self.ups = cast("Sequence[CausalConv2d]", nn.ModuleList(ups))  # back to 2h features
        self.hidden = CausalConv2d(wide, head, mask="B", gain=RELU_GAIN)

    def start_from(self, codes: Tensor) -> None:
        """Start at the histogram of the levels of each channel."""
        self.softmax.start_from(codes)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of every sub-pixel given those before it: (B, K, C, H, W) for codes (B, C, H, W)."""
        logits: Tensor = self.softmax(self._features(self.softmax.embedded(codes)))
        return logits.permute(0, 4, 3, 1, 2)

    def mean_nll(self, codes: Tensor) -> Tensor:
        """Cross-entropy, a scalar in nats."""
        features = self._features(self.softmax.embedded(codes))
        return self.softmax.nll(features, codes.permute(0, 2, 3, 1)) / len(codes)

    def log_prob(self, codes: Tensor) -> Tensor:
        """(B,) nats."""
        return self.softmax.log_prob(self._features(self.softmax.embedded(codes)), codes.permute(0, 2, 3, 1))

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw (N, C, H, W) int64."""
        uniforms = torch.rand((num_samples, *self.shape), generator=generator, device=self.softmax.bias.device)
        return draw_in_raster_order(lambda count: _Progress(self, count), uniforms)

    def _features(self, e: Tensor) -> Tensor:
        """Features of every sub-pixel before its softmax: (B, H, W, C, S) for embedded levels (B, C*F, H, W)."""
        x = self.first(e)
        for layer, up in zip(self.layers, self.ups, strict=True):
            x = x + up(layer(x))
        hidden = F.relu(self.hidden(F.relu(x)))
        features: Tensor = hidden.permute(0, 2, 3, 1).unflatten(3, (self.shape[0], -1))
        return features


class _Progress(Progress):
    """Every layer of the network, as far as its inputs are known."""

    def __init__(self, network: RecurrentStack, num_samples: int) -> None:
        C, _, width = network.shape
        self.softmax = network.softmax
        self.first, self.hidden, *self.ups = (
            IncrementalConv(conv, C, num_samples, width) for conv in (network.first, network.hidden, *network.ups)
        )
        self.layers = [incremental_lstm(layer, num_samples, width) for layer in network.layers]
        self.parts: list[IncrementalConv | IncrementalLSTM] = [self.first, self.hidden, *self.ups, *self.layers]

    def start_row(self, i: int) -> None:
        for part in self.parts:
            part.start_row()

    def start_pixel(self, j: int) -> None:
        for part in self.parts:
            part.start_pixel(j)

    def logits(self, j: int, c: int) -> Tensor:
        x = self.first.output(j, c)
        for layer, up in zip(self.layers, self.ups, strict=True):
            up.put(j, c, layer.output(j, c, x))
            x = x + up.output(j, c)
        self.hidden.put(j, c, F.relu(x))
        return self.softmax.of_channel(c, F.relu(self.hidden.output(j, c)))

    def put(self, j: int, c: int, level: Tensor) -> None:
        self.first.put(j, c, self.softmax.levels.table[level])

    def finish_row(self) -> None:
        for part in self.parts:
            part.finish_row()


@register_model("pixelrnn")
class PixelRNN(PixelModel):
    """A softmax over levels for every sub-pixel, given those before it that recurrent layers carry along."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes of the network and of its training."""

        width: Count
        """h, features of a state."""
        num_layers: Count
        recurrence: Recurrence = "diagonal"
        """`row` is a row LSTM, `diagonal` a diagonal BiLSTM."""
        head_width: Count = 32
        """Features of each channel before its softmax."""
        batch_size: Count = 32
        lr: Positive = 8.0e-3
        final_lr_share: Share = 0.02
        warmup_steps: Whole = 50
        ema_decay: Fraction = 0.98
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=24, num_layers=2),
        "small": Config(width=24, num_layers=3, batch_size=16),
        "paper": Config(
            width=128, num_layers=12, head_width=342, batch_size=16, lr=3.0e-4, warmup_steps=1000, ema_decay=0.9999
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.config = config
        self.pixels = RecurrentStack(
            spec.shape,
            self.levels,
            recurrence=config.recurrence,
            width=config.width,
            num_layers=config.num_layers,
            head_width=config.head_width,
        )
