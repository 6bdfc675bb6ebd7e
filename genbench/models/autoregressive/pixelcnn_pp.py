"""Autoregressive pixels by shifted convolutions on several grids with a mixture of logistics, exact probabilities.

Title: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications.
Authors: Tim Salimans, Andrej Karpathy, Xi Chen, Diederik P. Kingma.
Year: 2017. arXiv: 1701.05517.

Idea: an image is drawn pixel after pixel, each whole: a network that sees the pixels before says a mixture of
discretised logistics (Eq. 2), in which the channels of a pixel are drawn one after another and the location of each
moves linearly with those before it (Eq. 3), so that the network need not order channels itself (Sec. 2.2). The network
is two streams of shifted convolutions in gated residual blocks, on grids that shrink and grow again with short-cuts
between both ways (Sec. 2.3 and 2.4), and drops half of its features in training (Sec. 2.5).

Symbols: `x` integers 0 .. levels-1, on the axis from -1 to 1 for the network; K components. The law is
`genbench.prob.coupled_logistic`, the network `genbench.nn.shifted_streams`, its weights `genbench.nn.weight_norm`. With
`condition` every residual block is told a class or a caption, a vector added to its gates.

Drawing is incremental: every feature of every grid is computed once, when the pixels that it sees are drawn, and the
samples are those of one full pass for each pixel.

**Departures**
- Probabilities of narrow logistics are differences of cumulatives in a stable form; the authors' code replaces them by
  a density there and does not round what it draws. Ours sum to 1, and a draw is rounded to its level before it moves
  the next channel.
- Locations are what the network says on top of a linear map of the pixel on the left and three above, which starts with
  least errors over the first batch; the components start at quantiles of what it misses, with scales that join them. A
  network with random weights takes very many steps to repeat a level exactly, and without that logistics stay wide.
- The last layer has plain weights, small at first. Locations have a gain below 1, log-scales one above, so that a step
  of Adam moves both by useful amounts.
- Lengths of weights start from the first batch, as in the paper's code, but no output is scaled up by more than ten.
- `smoke` and `small` are narrow and shallow, with fewer components, and do without dropout.
- Adam with warm-up, a cosine, clipping and averaged weights is ours; the authors multiply the rate by 0.999995 a step.
- `paper` has the 5 blocks of 160 features on each of three grids, 10 components, dropout of 0.5, rate 1e-3 and
  average over 0.9995 of the authors' code; its batch is that of one of their GPUs. Conditions are left out of some
  training examples, so that the same network knows the law without one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import ExactLikelihood, GenerativeModel, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.nn._gated_pixelcnn_cache import SAMPLES_AT_ONCE
from genbench.nn._shifted_streams_cache import StreamsProgress
from genbench.nn.shifted_streams import ShiftedStreams
from genbench.nn.weight_norm import start_from
from genbench.prob import coupled_logistic
from genbench.prob import discretized_logistic as logistic
from genbench.prob.pixels import to_signed

LOG_SCALE_GAIN = 2.0
"""Of log-scales over what the last layer says: from the spread of a component to one level is a way of several nats."""
MAX_LOG_SCALE = 5.0
"""Where a component is a coin between the lowest and the highest level; far above, single precision has no gradient."""
LOCATION_GAIN = 0.1
"""Of locations, likewise: a step of Adam moves every weight by its learning rate, which together would carry a narrow
component past many levels."""
RIDGE = 1e-6
"""Of the first linear map: it has one also where pixels are of one value."""
NUM_REWEIGHTINGS = 8
"""Of squares of errors by the inverse of the errors, which leads from the least squares to the least errors."""


class CoupledHead(nn.Module):
    """Features of a pixel, and its neighbours, to a mixture of coupled logistics.

    Args:
        num_channels: C.
        num_levels: of every channel.
        in_features: S, of a pixel.
        num_mixtures: K.
    """

    def __init__(self, num_channels: int, num_levels: int, in_features: int, num_mixtures: int) -> None:
        super().__init__()
        self.num_channels, self.num_levels, self.num_mixtures = num_channels, num_levels, num_mixtures
        self.sizes = [1, num_channels, num_channels, coupled_logistic.num_pairs(num_channels)]
        self.linear = nn.Conv2d(in_features, num_mixtures * sum(self.sizes), 1)
        nn.init.normal_(self.linear.weight, std=0.01 * in_features**-0.5)  # first, what follows speaks alone
        num_neighbours = 4 * (num_channels + 1)
        self.slopes = nn.Parameter(torch.zeros(num_mixtures, num_channels, num_neighbours))
        self.offsets = nn.Parameter(torch.zeros(num_mixtures, num_channels))
        self.log_scale = nn.Parameter(torch.zeros(num_mixtures, num_channels))

    def forward(self, features: Tensor, neighbours: Tensor) -> coupled_logistic.CoupledMixture:
        """The law of every pixel, from features (B, S, H, W) and neighbours (B, 4 (C + 1), H, W)."""
        values: Tensor = self.linear(features)
        values = values.float() if values.dtype.itemsize < 4 else values
        weights, mu, log_scale, pairs = values.unflatten(1, (self.num_mixtures, -1)).split(self.sizes, dim=2)
        predicted = torch.einsum("kcn,bnhw->bkchw", self.slopes, neighbours) + self.offsets[:, :, None, None]
        log_scale = LOG_SCALE_GAIN * (log_scale + self.log_scale[:, :, None, None])
        mixture = logistic.Mixture(
            weights[:, :, 0], LOCATION_GAIN * (predicted + mu), log_scale.clamp(logistic.MIN_LOG_SCALE, MAX_LOG_SCALE)
        )
        return coupled_logistic.CoupledMixture(mixture, torch.tanh(pairs))

    def start_from(self, neighbours: Tensor, codes: Tensor) -> None:
        """Start at what a linear map of the neighbours says of the levels of a batch, and how it errs.

        Locations are the map of least errors, moved by quantiles of its errors; scales join these.

        Args:
            neighbours: (B, 4 (C + 1), H, W).
            codes: (B, C, H, W), the levels of the same pixels.
        """
        x, known = _rows(to_signed(codes, self.num_levels)), _rows(neighbours)  # (R, C) and (R, 4 (C + 1))
        level = 1.0 / (self.num_levels - 1)
        slopes = _least_errors(known, x, least=level)
        errors = x - known @ slopes
        middle = (torch.arange(self.num_mixtures, device=x.device) + 0.5) / self.num_mixtures
        offsets = errors.sort(dim=0).values[(middle * len(errors)).long()]  # (K, C)
        scales = (offsets - errors.median(0).values).abs().clamp_min(level)
        for end in (0, -1):  # these two hold what the map misses
            scales[end] = torch.maximum(scales[end], errors.std(0))
        self.slopes.data.copy_(slopes.T / LOCATION_GAIN)
        self.offsets.data.copy_(offsets / LOCATION_GAIN)
        self.log_scale.data.copy_(scales.log() / LOG_SCALE_GAIN)


class CoupledPixels(nn.Module):
    """p(x) = prod over pixels, in raster order, of a mixture of coupled logistics.

    Args:
        shape: (C, H, W) of the images.
        num_levels: of every channel.
        streams: from images to features of every pixel.
        num_mixtures: K.
    """

    def __init__(self, shape: tuple[int, ...], num_levels: int, *, streams: ShiftedStreams, num_mixtures: int) -> None:
        super().__init__()
        self.shape, self.num_levels = shape, num_levels
        self.streams = streams
        self.head = CoupledHead(shape[0], num_levels, streams.width, num_mixtures)

    @torch.no_grad()
    def start_from(self, codes: Tensor) -> None:
        """Start lengths of weights, and the law of every pixel, at a batch (B, C, H, W)."""
        x = self._signed(codes)
        start_from(self.streams, x)
        self.head.start_from(_neighbours(_bordered(x)), codes)

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> coupled_logistic.CoupledMixture:
        """The law of every pixel given those before it, for levels (B, C, H, W) and conditions (B, D)."""
        x = self._signed(codes)
        law: coupled_logistic.CoupledMixture = self.head(self.streams(x, condition), _neighbours(_bordered(x)))
        return law

    def log_prob(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Log-probability of images of levels (B, C, H, W): (B,) nats."""
        of_pixel = coupled_logistic.mixture_log_prob(codes, self(codes, condition), levels=self.num_levels)
        return of_pixel.flatten(1).sum(1, dtype=torch.float64).to(of_pixel.dtype)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator, condition: Tensor | None = None) -> Tensor:
        """Draw (N, C, H, W) uint8, a uniform for the component of each pixel and one for each of its channels."""
        C, H, W = self.shape
        device = self.head.linear.weight.device
        uniforms = torch.rand((num_samples, 1 + C, H, W), generator=generator, device=device)
        starts = range(0, max(1, num_samples), SAMPLES_AT_ONCE)
        chunks = [slice(start, start + SAMPLES_AT_ONCE) for start in starts]
        return torch.cat([self._drawn(uniforms[c], None if condition is None else condition[c]) for c in chunks])

    def _drawn(self, uniforms: Tensor, condition: Tensor | None) -> Tensor:
        C, H, W = self.shape
        x = torch.zeros((len(uniforms), C, H, W), dtype=torch.uint8, device=uniforms.device)
        known = _bordered(self._signed(x))
        progress = StreamsProgress(self.streams, len(uniforms), W, condition)
        for i in range(H):
            progress.start_row()
            for j in range(W):
                law = self.head(progress.features(j)[:, :, None, None], _neighbours(known[:, :, i : i + 2, j : j + 3]))
                pixel = coupled_logistic.inverted(uniforms[:, :, i : i + 1, j : j + 1], law, levels=self.num_levels)
                x[:, :, i : i + 1, j : j + 1] = pixel
                known[:, :C, i + 1, j + 1] = self._signed(pixel)[:, :, 0, 0]
                progress.put(j, known[:, :C, i + 1, j + 1])
        return x

    def _signed(self, codes: Tensor) -> Tensor:
        return to_signed(codes, self.num_levels).to(self.head.linear.weight.dtype)


def _bordered(x: Tensor) -> Tensor:
    """Images with a channel of ones, and zeros above and to both sides: (B, C + 1, H + 1, W + 2)."""
    return F.pad(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), (1, 1, 1, 0))


def _neighbours(bordered: Tensor) -> Tensor:
    """The pixel on the left and three above of each pixel of bordered images: (B, 4 (C + 1), H, W)."""
    H, W = bordered.shape[2] - 1, bordered.shape[3] - 2
    above = [bordered[:, :, :H, start : start + W] for start in range(3)]
    return torch.cat([bordered[:, :, 1:, :W], *above], dim=1)


def _rows(images: Tensor) -> Tensor:
    """Pixels of images (B, C, H, W): (B*H*W, C) float64."""
    return images.double().permute(0, 2, 3, 1).flatten(0, 2)


def _least_errors(known: Tensor, x: Tensor, *, least: float) -> Tensor:
    """Slopes (I, C) of the linear map of known (R, I) to x (R, C) of least errors, where those below `least` pass."""
    ridge = RIDGE * torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
    slopes = known.new_zeros(known.shape[1], x.shape[1])
    for step in range(1 + NUM_REWEIGHTINGS):
        errors = (x - known @ slopes).abs().clamp_min(least) if step else torch.ones_like(x)
        for c in range(x.shape[1]):
            weighted = (known / errors[:, c : c + 1] / len(x)).T
            slopes[:, c] = torch.linalg.solve(weighted @ known + ridge, weighted @ x[:, c])
    return slopes


@register_model("pixelcnn_pp")
class PixelCNNpp(ConditionalSampling, GenerativeModel, ExactLikelihood):
    """A mixture of coupled logistics for every pixel, given all pixels before it."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes of the network and of its training."""

        width: Count
        """Features of each stream."""
        num_blocks: Count
        """Residual blocks of each stream on every grid, on the way to the coarsest."""
        num_halvings: Whole
        """Grids beside that of the image, each of half as many rows and columns as the one before."""
        num_mixtures: Count = 10
        dropout: Fraction = 0.5
        """Share of features dropped in training, in every residual block."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an image."""
        condition_width: Count = 64
        """Length of the vector that tells it."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        batch_size: Count = 16
        lr: Positive = 1.0e-3
        final_lr_share: Share = 0.02
        warmup_steps: Whole = 50
        ema_decay: Fraction = 0.98
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=16, num_blocks=1, num_halvings=1, num_mixtures=5, dropout=0.0, lr=4.0e-3),
        "small": Config(width=24, num_blocks=1, num_halvings=2, num_mixtures=5, dropout=0.0, batch_size=8, lr=4.0e-3),
        "paper": Config(width=160, num_blocks=5, num_halvings=2, warmup_steps=1000, ema_decay=0.9995),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`pixelcnn_pp` models images of integers, found data of kind `{spec.kind}`")
        self.config = config
        streams = ShiftedStreams(
            spec.shape[0],
            width=config.width,
            num_blocks=config.num_blocks,
            num_halvings=config.num_halvings,
            dropout=config.dropout,
            condition_width=None if config.condition == "none" else config.condition_width,
        )
        self.pixels = CoupledPixels(spec.shape, spec.levels, streams=streams, num_mixtures=config.num_mixtures)
        self.conditioner = conditioner_for(spec, config, config.condition_width, owner="pixelcnn_pp")

    def phases(self) -> tuple[Phase, ...]:
        """One phase: minus the log-likelihood from the first step to the last."""
        c = self.config
        player = Player(
            name="model",
            modules=self.learners(self.pixels),
            lr=c.lr,
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=c.batch_size),)

    def prepare(self, batch: Batch) -> None:
        """Start near the first batch, and keep conditions to draw from."""
        self.pixels.start_from(batch.x)
        if self.conditioner is not None:
            self.conditioner.prepare(batch)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Minus the log-likelihood in nats per sub-pixel, so that its scale does not grow with the image."""
        nll = -self.pixels.log_prob(batch.x, self.told_in_training(batch)).mean() / self.spec.num_dims
        return Loss(nll, {"nats_per_dim": nll.detach()})

    @torch.no_grad()
    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw in raster order, each feature computed once: (N, C, H, W) uint8."""
        return self.pixels.sample(num_samples, generator=generator, condition=self.told(condition))

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Logarithm of the probability of the integers without a condition, exact: (B,) nats; nothing is drawn."""
        nothing = None if self.conditioner is None else self.conditioner.no_condition(len(x))
        return self.pixels.log_prob(x, nothing)
