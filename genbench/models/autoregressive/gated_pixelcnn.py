"""Autoregressive pixels: a gated two-stack masked CNN with a softmax over levels, exact probabilities.

Title: Conditional Image Generation with PixelCNN Decoders.
Authors: Aaron van den Oord, Nal Kalchbrenner, Oriol Vinyals, Lasse Espeholt, Alex Graves, Koray Kavukcuoglu.
Year: 2016. arXiv: 1606.05328.

Idea: an image is drawn pixel after pixel and, within a pixel, red before green before blue, each level from a
softmax over all levels (Eq. 1). A vertical stack of convolutions reads the rows above and a horizontal stack the
pixels on the left, so that every earlier pixel in reach counts; gates tanh(.) * sigmoid(.) (Eq. 2) replace ReLUs.

Symbols: `x` integers 0 .. levels-1; p(x) = prod_i p(x_i | x_1 .. x_{i-1}) over sub-pixels i. The network is
`genbench.nn.gated_pixelcnn`. With `condition` it is told a class or a caption, a vector s in the gates of every layer
of both stacks, tanh(W_f * x + V_f s) . sigmoid(W_g * x + V_g s) (Eq. 4); samples that nobody asks for take conditions
of training examples, and the likelihood is that of the network without a condition.

**Departures**
- A class is a learned vector that a matrix V maps to the gates, where the paper has one row of V for each class; it is
  left out of some training examples (Ho and Salimans 2022, arXiv:2207.12598), so that the same network knows the law
  without it. The map of Eq. 5, for conditions with a place, is `genbench.nn.conditional_pixelcnn`.
- An input level enters as its value, a constant and sines and cosines of doubling frequency, all fixed; the
  paper feeds the value. The last 1x1 convolution maps the features of a channel to the logits of that channel only.
- Kernels of the first layer are as wide as the others (the paper's figures mix 7 and 3 or 5).
- Weights start at unit gain, those before the softmax at random mixtures of the same waves, the output biases at the
  histogram of the first batch. Adam with warm-up, a cosine, clipping and averaged weights is ours.
- `smoke` and `small` are narrow and shallow. `paper` has the 20 layers of 384 units and 5x5 kernels of Sec. 3.1; the
  width before the softmax and the learning rate are not in the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import ExactLikelihood, GenerativeModel, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.nn.gated_pixelcnn import GatedPixelCNNStack


@register_model("gated_pixelcnn")
class GatedPixelCNN(ConditionalSampling, GenerativeModel, ExactLikelihood):
    """A softmax over levels for every sub-pixel, given all sub-pixels before it."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes of the network and of its training."""

        width: Count
        """Features of each stack; a multiple of the number of channels."""
        num_layers: Count
        kernel_size: Count = 5
        """Odd; the receptive field reaches num_layers * (kernel_size // 2) pixels."""
        head_width: Count = 32
        """Features of each channel before its softmax."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an image."""
        condition_width: Count = 64
        """Length of the vector that tells it."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        batch_size: Count = 32
        lr: Positive = 8.0e-3
        final_lr_share: Share = 0.02
        warmup_steps: Whole = 50
        ema_decay: Fraction = 0.98
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=24, num_layers=3, kernel_size=3, lr=1.6e-2),
        "small": Config(width=24, num_layers=4, batch_size=16, lr=4.0e-3),
        "paper": Config(
            width=384, num_layers=20, head_width=128, batch_size=128, lr=3.0e-4, warmup_steps=5000, ema_decay=0.9999
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`gated_pixelcnn` models images of integers, found data of kind `{spec.kind}`")
        self.config = config
        self.pixels = GatedPixelCNNStack(
            num_channels=spec.shape[0],
            num_levels=spec.levels,
            width=config.width,
            num_layers=config.num_layers,
            kernel_size=config.kernel_size,
            head_width=config.head_width,
            inputs="ordered",
            condition_width=None if config.condition == "none" else config.condition_width,
        )
        self.conditioner = conditioner_for(spec, config, config.condition_width, owner="gated_pixelcnn")

    def phases(self) -> tuple[Phase, ...]:
        """One phase: cross-entropy from the first step to the last."""
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
        """Start at the histogram of the levels of each channel, and keep conditions to draw from."""
        self.pixels.start_from(batch.x.long())
        if self.conditioner is not None:
            self.conditioner.prepare(batch)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Cross-entropy in nats per sub-pixel, so that its scale does not grow with the image."""
        nll = self.pixels.mean_nll(batch.x.long(), self.told_in_training(batch)) / self.spec.num_dims
        return Loss(nll, {"nats_per_dim": nll.detach()})

    @torch.no_grad()
    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw in raster order, each feature computed once: (N, C, H, W) uint8."""
        _, height, width = self.spec.shape
        drawn = self.pixels.sample(num_samples, height, width, generator=generator, condition=self.told(condition))
        return drawn.to(torch.uint8)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Logarithm of the probability of the integers without a condition, exact: (B,) nats; nothing is drawn."""
        nothing = None if self.conditioner is None else self.conditioner.no_condition(len(x))
        return self.pixels.log_prob(x.long(), nothing)
