"""Autoregressive pixels by masked convolutions with a softmax over levels, exact probabilities.

Title: Pixel Recurrent Neural Networks (Sec. 3.5, PixelCNN).
Authors: Aaron van den Oord, Nal Kalchbrenner, Koray Kavukcuoglu.
Year: 2016. arXiv: 1601.06759.

Idea: an image is drawn pixel after pixel in raster order and, within a pixel, red before green before blue, each level
from a softmax over all levels (Eq. 1 and 2). Convolutions whose weights on later pixels and channels are masked compute
all conditionals of a known image in one pass: mask A in the first layer, where a channel must not see itself, mask B in
all others. A stack of such masks never sees a wedge of pixels above and to the right of the current one, the blind spot
that `gated_pixelcnn` removes.

Symbols: `x` integers 0 .. levels-1; p(x) = prod_i p(x_i | x_1 .. x_{i-1}) over the C H W sub-pixels i; `h` features
within a block, `2h` between blocks.

Drawing is incremental: every feature is computed once, when what it needs is drawn (`genbench.nn.masked_conv`), and the
samples are those of one full pass for each sub-pixel.

**Departures**
- `h` is rounded up to a multiple of the number of channels, so that the channels' groups of features are equal.
- An input level enters as its value, a constant and sines and cosines of doubling frequency, all fixed; the paper feeds
  the value. The last 1x1 convolution maps the features of a channel to the logits of that channel only.
- On two levels, a softmax over both stands for the sigmoid of the paper, which is the same law.
- Weights start at the gain of ReLUs, the last ones of a block smaller by the root of the number of blocks, the output
  biases at the histogram of the first batch. Adam with warm-up, a cosine, clipping and averaged weights stands in place
  of RMSProp.
- `paper` has the 15 layers of h = 128, each a block, and the 1024 features before the softmax of the paper for
  CIFAR-10, the latter shared out among three channels; its batch and learning rate are ours. `smoke` and `small` are
  narrow and shallow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._pixel_model import PixelModel, PixelNetwork
from genbench.nn.level_softmax import LevelSoftmax
from genbench.nn.masked_conv import RELU_GAIN, CausalConv2d, IncrementalConv, channel_groups
from genbench.nn.raster_sampling import Progress, draw_in_raster_order

FIRST_REACH = 3
"""Of the first layer, which is 7x7 (Table 1)."""


class Block(nn.Module):
    """x + a 1x1 convolution to half of the features, a 3x3 one among these, a 1x1 one back (Fig. 5, left).

    Args:
        wide: (2h,), groups of the features of `x`.
        narrow: (h,), groups of the features within.
        gain: of the last weights.
    """

    def __init__(self, wide: Tensor, narrow: Tensor, *, gain: float) -> None:
        super().__init__()
        self.down = CausalConv2d(wide, narrow, mask="B", gain=RELU_GAIN)
        self.across = CausalConv2d(narrow, narrow, mask="B", rows_above=1, reach=1, gain=RELU_GAIN)
        self.up = CausalConv2d(narrow, wide, mask="B", gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2h, H, W) to the same shape."""
        narrow = self.across(F.relu(self.down(F.relu(x))))
        added: Tensor = self.up(F.relu(narrow))
        return x + added


class MaskedStack(PixelNetwork):
    """The whole network: a 7x7 convolution with mask A, blocks, and two 1x1 layers before the softmax (Table 1).

    Args:
        shape: (C, H, W) of the images.
        num_levels: of every sub-pixel.
        width: h, rounded up to a multiple of C.
        num_blocks: of them.
        head_width: features of each channel before its softmax.
    """

    def __init__(
        self, shape: tuple[int, ...], num_levels: int, *, width: int, num_blocks: int, head_width: int
    ) -> None:
        super().__init__()
        self.shape = shape
        C = shape[0]
        per_channel = -(-width // C)
        wide, narrow, head = (channel_groups(C, n) for n in (2 * per_channel, per_channel, head_width))
        self.softmax = LevelSoftmax(C, num_levels, head_width)
        embedded = channel_groups(C, self.softmax.num_features)
        self.first = CausalConv2d(embedded, wide, mask="A", rows_above=FIRST_REACH, reach=FIRST_REACH)
        blocks = [Block(wide, narrow, gain=RELU_GAIN * num_blocks**-0.5) for _ in range(num_blocks)]
        self.blocks = cast("Sequence[Block]", nn.ModuleList(blocks))
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
        for block in self.blocks:
            x = block(x)
        hidden = F.relu(self.hidden(F.relu(x)))
        features: Tensor = hidden.permute(0, 2, 3, 1).unflatten(3, (self.shape[0], -1))
        return features


class _Progress(Progress):
    """Every convolution of the network, as far as its inputs are known."""

    def __init__(self, network: MaskedStack, num_samples: int) -> None:
        C, _, width = network.shape

        def incremental(conv: CausalConv2d) -> IncrementalConv:
            return IncrementalConv(conv, C, num_samples, width)

        self.softmax = network.softmax
        self.first, self.hidden = incremental(network.first), incremental(network.hidden)
        self.blocks = [tuple(map(incremental, (block.down, block.across, block.up))) for block in network.blocks]
        self.convs = [self.first, *(conv for block in self.blocks for conv in block), self.hidden]

    def start_row(self, i: int) -> None:
        for conv in self.convs:
            conv.start_row()

    def start_pixel(self, j: int) -> None:
        for conv in self.convs:
            conv.start_pixel(j)

    def logits(self, j: int, c: int) -> Tensor:
        x = self.first.output(j, c)
        for block in self.blocks:
            y = x
            for conv in block:
                y = _passed(conv, j, c, y)
            x = x + y
        return self.softmax.of_channel(c, F.relu(_passed(self.hidden, j, c, x)))

    def put(self, j: int, c: int, level: Tensor) -> None:
        self.first.put(j, c, self.softmax.levels.table[level])

    def finish_row(self) -> None:
        for conv in self.convs:
            conv.finish_row()


def _passed(conv: IncrementalConv, j: int, c: int, features: Tensor) -> Tensor:
    """Outputs of a convolution behind a ReLU for one group of one pixel."""
    conv.put(j, c, F.relu(features))
    return conv.output(j, c)


@register_model("pixelcnn")
class PixelCNN(PixelModel):
    """A softmax over levels for every sub-pixel, given those before it that masked convolutions reach."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes of the network and of its training."""

        width: Count
        """h, features within a block."""
        num_blocks: Count
        """Blocks; the receptive field reaches 3 + num_blocks pixels."""
        head_width: Count = 32
        """Features of each channel before its softmax."""
        batch_size: Count = 32
        lr: Positive = 4.0e-3
        final_lr_share: Share = 0.02
        warmup_steps: Whole = 50
        ema_decay: Fraction = 0.98
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=24, num_blocks=3),
        "small": Config(width=32, num_blocks=5, batch_size=16),
        "paper": Config(
            width=128, num_blocks=15, head_width=342, batch_size=16, lr=3.0e-4, warmup_steps=1000, ema_decay=0.9999
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.config = config
        self.pixels = MaskedStack(
            spec.shape,
            self.levels,
            width=config.width,
            num_blocks=config.num_blocks,
            head_width=config.head_width,
        )
