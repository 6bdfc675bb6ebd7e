"""Multi-scale flow of actnorm, invertible 1x1 convolutions and affine couplings, with an exact density.

"Glow: Generative Flow with Invertible 1x1 Convolutions", Diederik P. Kingma, Prafulla Dhariwal, 2018 (NeurIPS 2018),
arXiv:1807.03039.

Idea: what a coupling leaves untouched must be mixed with the rest before the next one. In place of a fixed permutation
of channels a square matrix is learned, whose factors P L U give its determinant for nothing; a per-channel affine map
that starts from one batch replaces batch normalisation.

Legend: `x` integers, `y` dequantised point, `h` hidden point, `z` latent with base N(0, I), `W` the matrix of a 1x1
convolution, `s, t` scale and shift of a coupling, `K` steps at each of `L` levels.

One step is actnorm, 1x1 convolution, coupling (Table 1): `y_b = (x_b + t) sigmoid(s + 2)` with `s, t` from `x_a`, the
scale of the authors' code; the `additive` coupling has the shift alone. The half of the channels that leaves a level
has a Gaussian law with mean and scale from the half that stays; standardised by them it is part of `z`. The law of the
last level has a mean and a scale for each channel: an actnorm closes every level, the last one with them.

**Departures**
- Networks of couplings have no actnorm of their own, and their last convolution starts at zero without a trained gain.
- Vectors have steps without levels, and a residual MLP in place of the three convolutions.
- `smoke`, `small` and `vector` use narrow networks, few steps, higher learning rates and averaged weights; on images
  also the logit of pixels, without which so few steps lose much. `paper` is for CIFAR-10, with a warm-up of ten epochs.
  Adam has the usual decays, where the authors' code has Adamax by default and a decay of its own; images are never
  moved or flipped in training.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from torch import Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Margin, Positive, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.bijection import Bijection, Chain, Flatten, Normalise
from genbench.nn.dense_residual import DenseResidualNet
from genbench.nn.elementwise_maps import Additive, ElementwiseMap, SigmoidScale
from genbench.nn.invertible_convolution import InvertibleConvolution
from genbench.nn.multiscale_flow import Leaving, MultiScale, possible_levels
from genbench.nn.split_coupling import SplitCoupling

INITIAL_STD = 0.05
"""Of the weights of all convolutions but the last (authors' code)."""


class GaussianLeaving(Leaving):
    """z = (left - mean) exp(-log_std), with mean and log_std from what stays by one 3x3 convolution.

    Args:
        num_channels: of what stays and of what leaves.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.law = _zeroed(nn.Conv2d(num_channels, 2 * num_channels, 3, padding=1))

    def forward(self, left: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of the shape of `left`, and log-determinants (B,)."""
        mean, log_std = self.law(kept).to(left).chunk(2, dim=1)
        return (left - mean) * (-log_std).exp(), -log_std.flatten(1).sum(1)

    def inverse(self, z: Tensor, kept: Tensor) -> Tensor:
        """The `left` whose latents are `z`."""
        mean, log_std = self.law(kept).chunk(2, dim=1)
        left: Tensor = z * log_std.exp() + mean
        return left


@register_model("glow")
class Glow(ExactFlow):
    """Generative flow with invertible 1x1 convolutions; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings; the defaults are those of the authors' code for CIFAR-10, but for the batch."""

        coupling: Literal["affine", "additive"] = "affine"
        num_steps: Count = 32
        """K, steps at each level, or of the whole flow of vectors."""
        num_levels: Count = 3
        """L; fewer where a side becomes odd, and of no effect on vectors."""
        width: Count = 512
        """Features of the networks of couplings."""
        num_blocks: Count = 2
        """Residual blocks of the networks of vectors."""
        alpha: Margin | None = None
        """Margin of the logit of pixels; None has them on [-1, 1], the paper's interval but for a factor."""
        lr: Positive = 1.0e-3
        warmup_steps: Whole = 0
        final_lr_share: Share = 1.0
        clip_norm: Positive | None = None
        ema_decay: Fraction | None = None
        batch_size: Count = 64

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(
            num_steps=4,
            num_levels=2,
            width=32,
            alpha=0.05,
            lr=4.0e-3,
            warmup_steps=20,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.98,
        ),
        "small": Config(
            num_steps=6,
            num_levels=2,
            width=64,
            alpha=0.05,
            lr=4.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
        ),
        "vector": Config(
            num_steps=8,
            width=64,
            lr=3.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
            batch_size=256,
        ),
        "paper": Config(warmup_steps=977, batch_size=512),
    }
    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if spec.kind == "image":
            C, H, W = spec.shape
            num_levels = possible_levels(H, W, wanted=config.num_levels)
            if not num_levels:
                raise SettingError(f"`glow` halves both sides of images, which must be even, found {H}x{W}")
            scales = MultiScale((C, H, W), num_levels, self._steps, GaussianLeaving)
            self.flow = scales
        else:
            if spec.num_dims < 2:
                raise SettingError("`glow` couples the dimensions of vectors, and found 1")
            self.flow = Chain(Flatten(spec.shape), self._steps(spec.num_dims))

    def _steps(self, num_channels: int) -> Chain:
        """K steps, closed by the mean and scale of each channel."""
        elementwise: ElementwiseMap = SigmoidScale() if self.config.coupling == "affine" else Additive()
        parts: list[Bijection] = []
        for _ in range(self.config.num_steps):
            parts += [Normalise(num_channels), InvertibleConvolution(num_channels)]
            parts.append(SplitCoupling(num_channels, elementwise, self._conditioner))
        return Chain(*parts, Normalise(num_channels))

    def _conditioner(self, passes: int, parameters: int) -> nn.Module:
        width = self.config.width
        if self.spec.kind == "vector":
            return DenseResidualNet(passes, parameters, width=width, num_blocks=self.config.num_blocks)
        first, second = nn.Conv2d(passes, width, 3, padding=1), nn.Conv2d(width, width, 1)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=INITIAL_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        last = _zeroed(nn.Conv2d(width, parameters, 3, padding=1))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with weight and bias at zero."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
