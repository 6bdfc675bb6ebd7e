"""Dilated causal convolutions over raw sound: one sample after another, exact probabilities.

WaveNet: A Generative Model for Raw Audio. Aaron van den Oord, Sander Dieleman, Heiga Zen, Karen Simonyan, Oriol
Vinyals, Alex Graves, Nal Kalchbrenner, Andrew Senior, Koray Kavukcuoglu, 2016. arXiv:1609.03499

A waveform is drawn sample after sample, p(x) = prod_t p(x_t | x_1 .. x_{t-1}) (Eq. 1). Convolutions that look back
only, with dilations 1, 2, 4, ... in cycles, see far with few layers: 1 + (k - 1) sum_l d_l samples. Each layer is
gated and feeds two sums (Fig. 4): the residual path to the next layer and the skip path to the output.

    z = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h)    (Eq. 2; with a condition h, Sec. 2.5)
    x <- x + W_r z,    s <- s + W_s z

Legend: `x` features, `d` dilation, `k` taps of a kernel, `z` gated features, `s` skip sum, `h` condition, `B` batch,
`T` samples in time, `K` levels, `M` components, `w` width, `S` width of the skip sum, `L` layers.

Data are whole numbers: mu-law codes of amplitudes (Sec. 2.2) for waveforms, and for images their levels in raster
order, red before green before blue. `output=softmax` is a softmax over all levels, as in the paper; `output=logistic`
a mixture of discretised logistics over the same levels (Salimans et al. 2017, arXiv:1701.05517), which knows that
levels are in order and whose size does not grow with their number (van den Oord et al. 2017, arXiv:1711.10433). Both
are exact and share one unit, bits per stored sample. Samples are drawn with queues (`nn.dilated_queue`), where
`sample_naive` makes a pass over everything for each: both give the same.

**Departures**
- The first layer of the paper is a causal convolution of one-hot levels; here it is the case of one tap, a table of
  vectors, so that the receptive field is that of the dilated layers alone. The table and the last weights start at
  random mixtures of smooth features of the level (`nn.gated_pixelcnn.OrderedLevels`), as close levels sound alike.
- A convolution of the residual path has no bias: the gates of the next layer have one.
- Conditions are global (a class or a caption), not local (linguistic features over time). They are left out of some
  training examples; the likelihood is that of the network without one.
- The mixture is over mu-law codes, where van den Oord et al. 2017 have it over 16 bits; its locations are a tenth of
  what the last layer says, so that they learn no faster than narrow components bear.
- Adam with warm-up, a cosine, clipping and averaged weights, and output biases that start at the histogram of the first
  batch, are ours.
- The paper gives the dilations, 1 .. 512 repeated, and taps of two; it gives no widths and no learning rate. `paper`
  has three such cycles, `smoke` and `small` shorter ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import ExactLikelihood, GenerativeModel, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Several, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.models._level_heads import LogisticHead, SoftmaxHead, mixed_levels
from genbench.nn.dilated_queue import QueueWeights, sample_with_queues

POSITIONS_AT_ONCE = 1 << 17
"""Samples in time, over all examples, whose likelihood is computed together."""


class DilatedLayer(nn.Module):
    """The gates of one layer (Eq. 2) and its part of the skip sum."""

    def __init__(self, width: int, skip_width: int, *, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.lags = tuple(tap * dilation for tap in reversed(range(kernel_size)))
        self.gates = _linear(kernel_size * width, 2 * width, bias=True)  # a dilated convolution as one product
        self.skip = _linear(width, skip_width, bias=False)

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Gated features z: (B, T, w) for x (B, T, w) and what a condition adds to the gates (B, 2w)."""
        gates = self.gates(torch.cat([_earlier(x, lag) for lag in self.lags], dim=2))  # (B, T, 2w)
        f, g = (gates if told is None else gates + told[:, None]).chunk(2, dim=2)
        return torch.tanh(f) * torch.sigmoid(g)


class DilatedStack(nn.Module):
    """Levels to features of every step that see the levels before it, and these alone.

    Args:
        num_levels: K.
        width: features of the residual path.
        skip_width: features of the skip sum.
        dilations: of the layers, in order.
        kernel_size: taps, 2 or more.
        told_dim: length of a condition's vector; None for an unconditional stack.

    Raises:
        ValueError: there is no layer, or fewer than two taps.
    """

    def __init__(
        self,
        *,
        num_levels: int,
        width: int,
        skip_width: int,
        dilations: tuple[int, ...],
        kernel_size: int,
        told_dim: int | None,
    ) -> None:
        super().__init__()
        if kernel_size < 2 or not dilations:
            raise ValueError(f"expected a layer and two taps or more, found {len(dilations)} and {kernel_size}")
        self.dilations, self.kernel_size = dilations, kernel_size
        self.embedding = nn.Parameter(mixed_levels(num_levels, width))  # (K, w)
        layers = [DilatedLayer(width, skip_width, kernel_size=kernel_size, dilation=d) for d in dilations]
        self.layers = cast("Sequence[DilatedLayer]", nn.ModuleList(layers))
        residuals = [_linear(width, width, bias=False) for _ in layers[1:]]  # from each layer to the next
        self.residuals = cast("Sequence[nn.Linear]", nn.ModuleList(residuals))
        self.skip_bias = nn.Parameter(torch.zeros(skip_width))
        self.hidden = _linear(skip_width, skip_width, bias=True)
        self.told = None if told_dim is None else nn.Linear(told_dim, len(dilations) * 2 * width, bias=False)

    @property
    def receptive_field(self) -> int:
        """How many samples back the farthest lies that a step sees: 1 + (k - 1) sum_l d_l."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    def forward(self, codes: Tensor, told: Tensor | None) -> Tensor:
        """Features (B, T, S) of every step, none negative, for levels (B, T) and conditions (B, told_dim)."""
        x = _earlier(F.embedding(codes, self.embedding), 1)  # step t sees the levels before t: (B, T, w)
        by_layer = self.added_to_gates(told)
        skip = self.skip_bias
        for number, layer in enumerate(self.layers):
            z = layer(x, None if by_layer is None else by_layer[:, number])
            skip = skip + layer.skip(z)
            if number < len(self.residuals):
                x = x + self.residuals[number](z)
        return F.relu(self.hidden(F.relu(skip)))

    def added_to_gates(self, told: Tensor | None) -> Tensor | None:
        """V h of every layer: (B, L, 2w), or None where nothing is told."""
        if told is None or self.told is None:
            return None
        added: Tensor = self.told(told).unflatten(1, (len(self.layers), -1))
        return added

    def queue_weights(self) -> QueueWeights:
        """The weights as generation with queues wants them."""
        gates = torch.stack([layer.gates.weight.T for layer in self.layers])  # (L, k * w, 2w)
        taps = (
            gates.unflatten(1, (self.kernel_size, -1)).transpose(0, 1).contiguous()
        )  # (k, L, w, 2w), the present last
        width = taps.shape[2]
        residual = [linear.weight.T for linear in self.residuals]
        return QueueWeights(
            dilations=self.dilations,
            embedding=self.embedding,
            past=taps[:-1],
            here=taps[-1],
            gate_bias=torch.stack([layer.gates.bias for layer in self.layers]),
            residual=torch.stack(residual) if residual else gates.new_zeros(0, width, width),
            skip=torch.cat([layer.skip.weight.T for layer in self.layers]),
            skip_bias=self.skip_bias,
            hidden=self.hidden.weight.T.contiguous(),
            hidden_bias=self.hidden.bias,
        )


@register_model("wavenet")
class WaveNet(ConditionalSampling, GenerativeModel, ExactLikelihood):
    """A distribution over levels for every sample in time, given all samples before it in reach."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes of the network and of its training."""

        width: Count
        """Features of the residual path, w."""
        skip_width: Count
        """Features of the skip sum, S."""
        num_cycles: Count
        layers_per_cycle: Count
        """With dilations 1, 2, 4, ..., each twice the one before."""
        kernel_size: Several = 2
        """Taps of a kernel, k; the receptive field is 1 + (k - 1) num_cycles (2^layers_per_cycle - 1) samples."""
        output: Literal["softmax", "logistic"] = "softmax"
        """A softmax over all levels, or a mixture of discretised logistics."""
        num_mixtures: Count = 10
        """Components of the mixture."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an example."""
        condition_width: Count = 32
        """Length of the vector of a condition; of no effect without one."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        batch_size: Count = 8
        lr: Positive = 4.0e-3
        final_lr_share: Share = 0.02
        warmup_steps: Whole = 50
        ema_decay: Fraction = 0.98
        clip_norm: Positive = 1.0

    takes = ("waveform", "image")
    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=16, skip_width=32, num_cycles=1, layers_per_cycle=6, batch_size=16, lr=8.0e-3),
        "small": Config(width=32, skip_width=64, num_cycles=2, layers_per_cycle=8, batch_size=2),
        "paper": Config(
            width=128,
            skip_width=256,
            num_cycles=3,
            layers_per_cycle=10,
            condition_width=128,
            lr=1.0e-3,
            warmup_steps=1000,
            ema_decay=0.9999,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind not in self.takes or spec.levels is None:
            raise SettingError(
                f"`wavenet` is for sequences of whole numbers, these data are of kind `{spec.kind}`",
                hint="waveforms of mu-law codes, such as `tones`, or images",
            )
        c = config
        self.config = config
        self.conditioner = conditioner_for(spec, c, c.condition_width, owner="wavenet")
        self.stack = DilatedStack(
            num_levels=spec.levels,
            width=c.width,
            skip_width=c.skip_width,
            dilations=tuple(2**power for _ in range(c.num_cycles) for power in range(c.layers_per_cycle)),
            kernel_size=c.kernel_size,
            told_dim=None if self.conditioner is None else c.condition_width,
        )
        self.head: SoftmaxHead | LogisticHead = (
            SoftmaxHead(spec.levels, c.skip_width)
            if c.output == "softmax"
            else LogisticHead(spec.levels, c.skip_width, c.num_mixtures)
        )

    def phases(self) -> tuple[Phase, ...]:
        """One phase: cross-entropy from the first step to the last."""
        c = self.config
        player = Player(
            name="model",
            modules=(self.head, *self.learners(self.stack)),
            lr=c.lr,
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=c.batch_size),)

    def prepare(self, batch: Batch) -> None:
        """Start at the histogram of the levels, and keep conditions to draw from."""
        self.head.start_from(self._codes(batch.x))
        if self.conditioner is not None:
            self.conditioner.prepare(batch)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Cross-entropy in nats per sample in time, so that its scale does not grow with the length."""
        codes = self._codes(batch.x)
        h = self.stack(codes, self.told_in_training(batch))
        nll = self.head.nll(h.flatten(0, 1), codes.flatten()) / codes.numel()
        return Loss(nll, {"nats_per_dim": nll.detach()})

    @torch.no_grad()
    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw in order with queues, each feature computed once: (N, *shape) uint8."""
        uniforms, added = self._uniforms(num_samples, generator), self.stack.added_to_gates(self.told(condition))
        return self._data(sample_with_queues(self.stack.queue_weights(), uniforms, added, self.head.draw))

    @torch.no_grad()
    def sample_naive(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw the same as `sampled`, with one pass over the whole sequence for each of its samples."""
        uniforms, told = self._uniforms(num_samples, generator), self.told(condition)
        codes = torch.zeros(uniforms.shape[:2], dtype=torch.int64, device=uniforms.device)
        for t in range(codes.shape[1]):
            codes[:, t] = self.head.draw(self.stack(codes, told)[:, t], uniforms[:, t])
        return self._data(codes)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Logarithm of the probability of the integers, exact: (B,) nats; nothing is drawn."""
        parts = self._codes(x).split(max(1, POSITIONS_AT_ONCE // self.spec.num_dims))
        return torch.cat([self._log_prob(codes) for codes in parts])

    def _log_prob(self, codes: Tensor) -> Tensor:
        told = None if self.conditioner is None else self.conditioner.no_condition(len(codes))
        log_p = self.head.log_prob(self.stack(codes, told).flatten(0, 1), codes.flatten())
        return log_p.view(codes.shape).sum(1, dtype=torch.float64).to(log_p.dtype)

    def _uniforms(self, num_samples: int, generator: Generator) -> Tensor:
        shape = (num_samples, self.spec.num_dims, self.head.num_uniforms)
        return torch.rand(shape, generator=generator, device=self.stack.embedding.device)

    def _codes(self, x: Tensor) -> Tensor:
        """Levels of examples in the order in which they are drawn: (B, T) int64."""
        in_order = x if self.spec.kind == "waveform" else x.permute(0, 2, 3, 1)  # channels within a pixel
        return in_order.flatten(1).long()

    def _data(self, codes: Tensor) -> Tensor:
        """Examples (B, *shape) uint8 of levels (B, T)."""
        if self.spec.kind == "waveform":
            waveforms: Tensor = codes.view(-1, *self.spec.shape).to(torch.uint8)
            return waveforms
        channels, height, width = self.spec.shape
        return codes.view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous().to(torch.uint8)


def _earlier(x: Tensor, lag: int) -> Tensor:
    """What stood `lag` steps earlier, zeros before the first: (B, T, w)."""
    length = x.shape[1]
    return F.pad(x[:, : max(0, length - lag)], (0, 0, min(lag, length), 0)) if lag else x


def _linear(in_features: int, out_features: int, *, bias: bool) -> nn.Linear:
    """A linear map that keeps the variance of its inputs."""
    linear = nn.Linear(in_features, out_features, bias=bias)
    linear.weight.data = torch.randn_like(linear.weight) * in_features**-0.5
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
