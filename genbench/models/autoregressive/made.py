"""Autoregressive pixels by a dense autoencoder whose weights are masked, exact probabilities.

Title: MADE: Masked Autoencoder for Distribution Estimation.
Authors: Mathieu Germain, Karol Gregor, Iain Murray, Hugo Larochelle.
Year: 2015. arXiv: 1502.03509.

Idea: every input has a place in an order, and every hidden unit a number, the last place that it may depend on. Weights
that would break this are masked, so that output d depends on the inputs before d alone and one pass gives all
conditionals of p(x) = prod_d p(x_d | x before d). With several orders and sets of numbers the same weights are trained
under all of them, and their laws are averaged.

Symbols: `x` integers 0 .. levels-1, `D` = C H W sub-pixels; m^0(d) place of input d in the order, 1 .. D; m^l(k) number
of unit k of layer l; a weight from k' to k is kept where m^l(k) >= m^{l-1}(k'), and to output d where m^0(d) > m^L(k);
`A` weights from inputs to outputs past all units, kept from d' to d where m^0(d) > m^0(d') (the direct connections of
Sec. 4); `M` number of orders; `S` features of an output.

Drawing is incremental: a unit is computed once, when the last input that it depends on is drawn, so that one image
costs about one pass, and the samples are those of one full pass for each sub-pixel.

**Departures**
- The probability of an image is the mean over all M masks, p(x) = 1/M sum_m p_m(x), which is a law, and a sample first
  draws m. Training takes a random m at every step, and so minimises a bound of minus the logarithm of that mean.
- On two levels outputs are the logits of the paper. For more levels, which the paper has not, an input enters as its
  value, a constant and waves (A reads the value alone), and S features of an output, masked like one, give the logits
  of its levels by a linear map that all pixels of a channel share.
- The order without shuffling is raster order, channels within pixels. The numbers of units are drawn once for each
  order, not anew in training without end.
- Weights start at the gain of ReLUs, not orthogonal, and A at zero. Adam with warm-up, a cosine, clipping and averaged
  weights stands in place of Adagrad.
- `paper` has the 2 layers of 8000 units, the 32 orders and the batch of 100 of the best result on binarised MNIST (the
  authors' code); its learning rate is ours. `smoke` and `small` have one order.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._pixel_model import PixelModel, PixelNetwork
from genbench.nn.level_softmax import LevelSoftmax, draw
from genbench.prob.pixels import to_signed

MASK_SEED = 1234
"""Of orders and numbers, which are part of the model and the same wherever it is built (the authors' code)."""


class Numbers:
    """The places of inputs and the numbers of units of one mask.

    Args:
        num_dims: D.
        width: units of each hidden layer.
        num_layers: L.
        shuffled: whether the order is random, or that of the inputs.
        rng: source of orders and numbers.
    """

    def __init__(self, num_dims: int, *, width: int, num_layers: int, shuffled: bool, rng: np.random.Generator) -> None:
        places = rng.permutation(num_dims) if shuffled else np.arange(num_dims)
        self.of_layers = [places + 1]
        lowest = 1
        for _ in range(num_layers):
            numbers = rng.integers(lowest, max(lowest + 1, num_dims), size=width)  # up to D - 1
            self.of_layers.append(numbers)
            lowest = int(numbers.min())
        self.order = [int(dim) for dim in np.argsort(places)]  # sub-pixels as they are drawn
        self.units = [np.argsort(numbers, kind="stable") for numbers in self.of_layers[1:]]
        upto = np.arange(num_dims + 1)
        self.counts = [
            [int(count) for count in np.searchsorted(np.sort(numbers), upto, side="right")]
            for numbers in self.of_layers[1:]
        ]  # of layer l, the units of a number of at most t


class MaskedAutoencoder(PixelNetwork):
    """The network under all of its masks.

    Args:
        shape: (C, H, W) of the images.
        num_levels: of every sub-pixel.
        width: units of each hidden layer.
        num_layers: L.
        head_width: S; on two levels there is one.
        num_masks: M.
        shuffled: whether orders are random, or all raster order.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int,
        *,
        width: int,
        num_layers: int,
        head_width: int,
        num_masks: int,
        shuffled: bool,
    ) -> None:
        super().__init__()
        self.shape, self.num_levels, self.num_dims = shape, num_levels, int(np.prod(shape))
        rng = np.random.default_rng(MASK_SEED)
        self.masks = [
            Numbers(self.num_dims, width=width, num_layers=num_layers, shuffled=shuffled, rng=rng)
            for _ in range(num_masks)
        ]
        self.softmax = None if num_levels == 2 else LevelSoftmax(shape[0], num_levels, head_width)
        self.num_inputs = 1 if self.softmax is None else self.softmax.num_features
        self.num_outputs = 1 if self.softmax is None else head_width
        sizes = [self.num_dims * self.num_inputs, *[width] * num_layers]
        hidden = [_started(nn.Linear(*pair)) for pair in itertools.pairwise(sizes)]
        self.hidden = cast("Sequence[nn.Linear]", nn.ModuleList(hidden))
        self.out = _started(nn.Linear(width, self.num_dims * self.num_outputs))
        self.direct = nn.Parameter(torch.zeros(self.num_dims * self.num_outputs, self.num_dims))  # A

    def start_from(self, codes: Tensor) -> None:
        """Start at the histogram of the levels, of each channel or, on two levels, of each sub-pixel."""
        if self.softmax is not None:
            self.softmax.start_from(codes)
            return
        share = (_in_order(codes).float().sum(0) + 1.0) / (len(codes) + 2.0)
        self.out.bias.data.copy_(share.logit())

    def forward(self, codes: Tensor, mask: int = 0) -> Tensor:
        """Logits of every sub-pixel given those before it in one order: (B, K, C, H, W) for codes (B, C, H, W)."""
        logits = self._logits(self._features(_in_order(codes), self.masks[mask]))
        C, H, W = self.shape
        images: Tensor = logits.unflatten(1, (H, W, C)).permute(0, 4, 3, 1, 2)
        return images

    def mean_nll(self, codes: Tensor) -> Tensor:
        """Minus the mean log-probability under one mask, taken at random, a scalar in nats."""
        mask = int(torch.randint(len(self.masks), ())) if len(self.masks) > 1 else 0
        in_order = _in_order(codes)
        features = self._features(in_order, self.masks[mask])
        if self.softmax is None:
            targets = in_order.to(features.dtype)
            entropy = F.binary_cross_entropy_with_logits(features.flatten(1), targets, reduction="sum")
            return entropy / len(codes)
        return self.softmax.nll(features.unflatten(1, (-1, self.shape[0])), self._by_channel(in_order)) / len(codes)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Logarithm of the mean probability over all masks: (B,) nats."""
        in_order = _in_order(codes)
        of_masks = torch.stack([self._log_prob(in_order, mask) for mask in self.masks])
        return torch.logsumexp(of_masks, dim=0) - float(np.log(len(self.masks)))

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw (N, C, H, W) int64: a mask for each sample, then its sub-pixels in the order of that mask."""
        device = self.out.bias.device
        mask = torch.randint(len(self.masks), (num_samples,), generator=generator, device=device)
        uniforms = torch.rand((num_samples, self.num_dims), generator=generator, device=device)
        codes = torch.zeros_like(uniforms, dtype=torch.int64)
        for number, numbers in enumerate(self.masks):
            rows = (mask == number).nonzero()[:, 0]
            if len(rows):
                codes[rows] = self._drawn(numbers, uniforms[rows])
        C, H, W = self.shape
        images: Tensor = codes.unflatten(1, (H, W, C)).permute(0, 3, 1, 2)
        return images

    def _drawn(self, numbers: Numbers, uniforms: Tensor) -> Tensor:
        progress = _Progress(self, numbers, len(uniforms))
        codes = torch.zeros_like(uniforms, dtype=torch.int64)
        for time, dim in enumerate(numbers.order):
            codes[:, dim] = draw(self.logits_at(dim, progress.features(time)), uniforms[:, dim])
            progress.put(time, self.embedded(codes[:, dim]), self.values(codes[:, dim]))
        return codes

    def embedded(self, codes: Tensor) -> Tensor:
        """Inputs (..., F) of levels (...): on two levels the level itself."""
        return codes[..., None].to(self.out.weight.dtype) if self.softmax is None else self.softmax.levels.table[codes]

    def values(self, codes: Tensor) -> Tensor:
        """What A reads of levels (...), of the same shape: on two levels the level, else its value in [-1, 1]."""
        dtype = self.out.weight.dtype
        return codes.to(dtype) if self.softmax is None else to_signed(codes, self.num_levels).to(dtype)

    def logits_at(self, dim: int, features: Tensor) -> Tensor:
        """Logits (N, K) of one sub-pixel from its features (N, S)."""
        if self.softmax is None:
            return F.pad(features, (1, 0))
        return self.softmax.of_channel(dim % self.shape[0], features)

    def _features(self, in_order: Tensor, numbers: Numbers) -> Tensor:
        """Features (B, D, S) of every sub-pixel from those before it, of codes (B, D)."""
        h = self.embedded(in_order).flatten(1)
        before = _numbers(numbers.of_layers[0], h.device).repeat_interleave(self.num_inputs)
        for layer, of_units in zip(self.hidden, numbers.of_layers[1:], strict=True):
            after = _numbers(of_units, h.device)
            h = F.relu(F.linear(h, layer.weight * (after[:, None] >= before), layer.bias))
            before = after
        of_inputs = _numbers(numbers.of_layers[0], h.device)
        places = of_inputs.repeat_interleave(self.num_outputs)[:, None]
        out = F.linear(h, self.out.weight * (places > before), self.out.bias)
        out = out + F.linear(self.values(in_order), self.direct * (places > of_inputs))
        features: Tensor = out.unflatten(1, (self.num_dims, self.num_outputs))
        return features

    def _logits(self, features: Tensor) -> Tensor:
        """(B, D, K) of features (B, D, S)."""
        if self.softmax is None:
            return F.pad(features, (1, 0))
        logits: Tensor = self.softmax(features.unflatten(1, (-1, self.shape[0])))
        return logits.flatten(1, 2)

    def _log_prob(self, in_order: Tensor, numbers: Numbers) -> Tensor:
        """Under one mask: (B,) nats."""
        features = self._features(in_order, numbers)
        if self.softmax is None:
            targets = in_order.to(features.dtype)
            nats = F.binary_cross_entropy_with_logits(features.flatten(1), targets, reduction="none")
            return -nats.sum(1, dtype=torch.float64).to(nats.dtype)
        return self.softmax.log_prob(features.unflatten(1, (-1, self.shape[0])), self._by_channel(in_order))

    def _by_channel(self, in_order: Tensor) -> Tensor:
        by_channel: Tensor = in_order.unflatten(1, (-1, self.shape[0]))
        return by_channel


class _Progress:
    """Units of all layers as far as they are known, sorted by their numbers: a mask is then a range.

    At time t the first t inputs of the order are known, and with them the units of numbers up to t.
    """

    def __init__(self, network: MaskedAutoencoder, numbers: Numbers, num_samples: int) -> None:
        device = network.out.bias.device
        units = [torch.from_numpy(order).to(device) for order in numbers.units]
        self.counts, self.dims = numbers.counts, numbers.order
        self.num_inputs, self.num_outputs = network.num_inputs, network.num_outputs
        first, *later = network.hidden
        self.of_inputs = first.weight[units[0]].T.contiguous()  # (D * F, width)
        pairs = zip(later, units, units[1:], strict=False)
        self.between = [layer.weight[after][:, before].T.contiguous() for layer, before, after in pairs]
        self.of_outputs = network.out.weight[:, units[-1]].T.contiguous()  # (width, D * S)
        self.out_bias, self.direct = network.out.bias, network.direct.T.contiguous()  # (D, D * S)
        self.values = self.direct.new_zeros(num_samples, len(self.dims))  # what is not drawn yet stays at zero
        biases = [layer.bias[order] for layer, order in zip(network.hidden, units, strict=True)]
        self.units = [bias.expand(num_samples, -1).clone() for bias in biases]  # (N, width), before the ReLU or after

    def features(self, time: int) -> Tensor:
        """Features (N, S) of the sub-pixel that is drawn at `time`."""
        if time > 0:
            self._complete(time)
        known, place = self.counts[-1][time], self.dims[time] * self.num_outputs
        columns = slice(place, place + self.num_outputs)
        features = torch.addmm(self.out_bias[columns], self.units[-1][:, :known], self.of_outputs[:known, columns])
        return features + self.values @ self.direct[:, columns]

    def put(self, time: int, inputs: Tensor, values: Tensor) -> None:
        """Take the inputs (N, F) of the sub-pixel that was drawn at `time`, and what A reads of it (N,)."""
        self.values[:, self.dims[time]] = values
        first, place = self.counts[0][time], self.dims[time] * self.num_inputs  # units of greater numbers see it
        self.units[0][:, first:].addmm_(inputs, self.of_inputs[place : place + self.num_inputs, first:])

    def _complete(self, time: int) -> None:
        """Finish the units of number `time`, layer after layer, and tell them on."""
        for number, (units, counts) in enumerate(zip(self.units, self.counts, strict=True)):
            new = slice(counts[time - 1], counts[time])
            units[:, new].relu_()
            if number + 1 < len(self.units):
                first = self.counts[number + 1][time - 1]  # units of this number or a greater one see them
                self.units[number + 1][:, first:].addmm_(units[:, new], self.between[number][new, first:])


def _in_order(codes: Tensor) -> Tensor:
    """Images (B, C, H, W) as vectors (B, D) in raster order, channels within pixels."""
    return codes.permute(0, 2, 3, 1).flatten(1)


def _numbers(numbers: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).to(device)


def _started(layer: nn.Linear) -> nn.Linear:
    """The layer itself, with the weights of He et al. (2015, 1502.01852) for half of its inputs, and no bias."""
    layer.weight.data = torch.randn_like(layer.weight) * (0.25 * layer.in_features) ** -0.5
    nn.init.zeros_(layer.bias)
    return layer


@register_model("made")
class MADE(PixelModel):
    """A masked autoencoder of the sub-pixels as one vector."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes of the network and of its training."""

        width: Count
        """Units of each hidden layer."""
        num_layers: Count = 2
        """L."""
        head_width: Count = 16
        """S, features of a sub-pixel before its softmax; on two levels there is one, its logit."""
        num_masks: Count = 1
        """M, orders and sets of numbers of the units."""
        shuffled: bool = False
        """Whether orders are random, or all raster order."""
        batch_size: Count = 32
        lr: Positive = 2.0e-3
        final_lr_share: Share = 0.02
        warmup_steps: Whole = 50
        ema_decay: Fraction = 0.98
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=256),
        "small": Config(width=512, head_width=8, batch_size=64, lr=2.0e-3),
        "paper": Config(
            width=8000, num_masks=32, shuffled=True, batch_size=100, lr=1.0e-3, warmup_steps=1000, ema_decay=0.9999
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.config = config
        self.pixels = MaskedAutoencoder(
            spec.shape,
            self.levels,
            width=config.width,
            num_layers=config.num_layers,
            head_width=config.head_width,
            num_masks=config.num_masks,
            shuffled=config.shuffled,
        )
