"""Flow of monotone splines, as couplings or autoregressive, with an exact density.

"Neural Spline Flows", Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios, 2019 (NeurIPS 2019),
arXiv:1906.04032.

Idea: an affine map of a coordinate is a straight line; a monotone spline of quotients of quadratics bends as often as
it has knots and still has a closed inverse and slope. In place of the affine maps of a coupling or an autoregressive
flow, one step can then split a mode in two.

Legend: `x` integers, `y` dequantised point, `h` hidden point, `z` latent with base N(0, I), `K` bins, `B` bound: the
spline acts on [-B, B] and is the identity outside.

`transform` chooses. `coupling` has both passes at the cost of one network call; `autoregressive` conditions every
dimension on all before it, and draws samples dimension after dimension. Between splines stand invertible linear layers,
factored as P L U; the couplings of images run in the multi-scale architecture of Glow (arXiv:1807.03039) with its 1x1
convolutions (Sec. 5.2 of the paper), all else flattens its data.

**Departures**
- Actnorm stands before every step for vectors too, and no network has batch normalisation: the density of one example
  does not depend on its batch. Networks start at zero, so that every spline starts as the identity.
- The half that passes through a coupling is not moved by a spline of its own without a network, as for tables in the
  paper: the linear layers mix the halves.
- Half of the channels leave at every level, where the authors' settings for CIFAR-10 keep them all; residual blocks of
  couplings of images stand on 1x1 convolutions at both ends.
- `smoke`, `small` and `vector` use narrow networks, few steps, higher learning rates and averaged weights. `paper` is
  the authors' setting for CIFAR-10 at 8 bits, `paper_vector` their default for tables, which each table then changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Margin, Positive, Several, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.autoregressive_flow import Autoregressive
from genbench.nn.bijection import Bijection, Chain, Flatten, Normalise
from genbench.nn.dense_residual import DenseResidualNet
from genbench.nn.elementwise_maps import ElementwiseMap
from genbench.nn.invertible_convolution import InvertibleConvolution
from genbench.nn.multiscale_flow import MultiScale, possible_levels
from genbench.nn.split_coupling import SplitCoupling
from genbench.prob.rational_quadratic_spline import inverse_spline, num_parameters, spline


@dataclasses.dataclass(frozen=True)
class RationalQuadratic(ElementwiseMap):
    """The spline of `prob.rational_quadratic_spline`."""

    num_bins: int
    """K."""
    bound: float
    """B."""

    @property
    def num_parameters(self) -> int:
        """Widths, heights and inner slopes."""
        return num_parameters(self.num_bins)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and the logarithms of the slopes."""
        return spline(x, raw, bound=self.bound)

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """By the roots of a quadratic."""
        return inverse_spline(y, raw, bound=self.bound)


class ConvBlock(nn.Module):
    """h + conv(relu(conv(relu(h)))), with dropout before the last convolution."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        change: Tensor = self.second(self.dropout(F.relu(self.first(F.relu(h)))))
        return h + change


class ConvResidualNet(nn.Module):
    """(B, in, H, W) to (B, out, H, W), between 1x1 convolutions; 0 at its start."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int, num_blocks: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 1)
        self.blocks = cast("Sequence[ConvBlock]", nn.ModuleList(ConvBlock(width, dropout) for _ in range(num_blocks)))
        self.head = nn.Conv2d(width, out_channels, 1)
        nn.init.zeros_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(F.relu(h))
        return out


@register_model("neural_spline")
class NeuralSplineFlow(ExactFlow):
    """Rational-quadratic spline flow; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        transform: Literal["coupling", "autoregressive"] = "coupling"
        num_bins: Several = 8
        """K."""
        bound: Positive = 3.0
        """B."""
        num_steps: Count = 4
        """Steps at each level of images, or of the whole flow where data are flattened."""
        num_levels: Count = 3
        """Levels of images, fewer where a side becomes odd; of no effect where data are flattened."""
        width: Count = 64
        """Features of the networks."""
        num_blocks: Count = 2
        """Residual blocks of the networks."""
        dropout: Fraction = 0.0
        """Share of features dropped in training; couplings only."""
        alpha: Margin | None = None
        """Margin of the logit of pixels; None has them on [-1, 1], as Glow has but for a factor."""
        lr: Positive = 2.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.05
        clip_norm: Positive | None = 5.0
        ema_decay: Fraction | None = 0.99
        batch_size: Count = 64

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(num_levels=2, num_steps=3, width=32, num_blocks=1, lr=4.0e-3, warmup_steps=20, ema_decay=0.98),
        "small": Config(num_levels=2, width=48, num_blocks=1, lr=4.0e-3),
        "vector": Config(num_steps=6, width=64, lr=3.0e-3, batch_size=256),
        "paper": Config(
            num_bins=4,
            num_steps=7,
            width=96,
            num_blocks=3,
            dropout=0.2,
            lr=5.0e-4,
            warmup_steps=0,
            final_lr_share=0.0,
            clip_norm=None,
            ema_decay=None,
            batch_size=512,
        ),
        "paper_vector": Config(
            num_steps=10,
            width=256,
            dropout=0.25,
            lr=3.0e-4,
            warmup_steps=0,
            final_lr_share=0.0,
            ema_decay=None,
        ),
    }
    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.spline = RationalQuadratic(config.num_bins, config.bound)
        if config.transform == "coupling" and spec.kind == "image":
            C, H, W = spec.shape
            num_levels = possible_levels(H, W, wanted=config.num_levels)
            if not num_levels:
                raise SettingError(f"couplings of images halve both sides, which must be even, found {H}x{W}")
            self.flow = MultiScale((C, H, W), num_levels, self._level)
        else:
            if config.transform == "coupling" and spec.num_dims < 2:
                raise SettingError("a coupling needs at least 2 dimensions; take `transform=autoregressive`")
            self.flow = self._flat_flow()

    def _level(self, num_channels: int) -> Chain:
        """Steps at one level, closed by a linear layer."""
        c, parts = self.config, list[Bijection]()
        for _ in range(c.num_steps):
            parts += [Normalise(num_channels), InvertibleConvolution(num_channels)]
            parts.append(SplitCoupling(num_channels, self.spline, self._conv_network))
        return Chain(*parts, InvertibleConvolution(num_channels))

    def _flat_flow(self) -> Chain:
        """Steps of vectors, closed by a linear layer."""
        c, D, parts = self.config, self.spec.num_dims, list[Bijection]()
        for number in range(c.num_steps):
            parts += [Normalise(D), InvertibleConvolution(D, start="permutation")]
            if c.transform == "coupling":
                parts.append(SplitCoupling(D, self.spline, self._dense_network, parity=number % 2))
            else:
                layers = 1 + 2 * c.num_blocks
                parts.append(Autoregressive(D, self.spline, width=c.width, num_layers=layers, residual=True))
        return Chain(Flatten(self.spec.shape), *parts, Normalise(D), InvertibleConvolution(D, start="permutation"))

    def _conv_network(self, passes: int, parameters: int) -> nn.Module:
        c = self.config
        return ConvResidualNet(passes, parameters, width=c.width, num_blocks=c.num_blocks, dropout=c.dropout)

    def _dense_network(self, passes: int, parameters: int) -> nn.Module:
        c = self.config
        return DenseResidualNet(passes, parameters, width=c.width, num_blocks=c.num_blocks, dropout=c.dropout)
