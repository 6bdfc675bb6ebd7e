"""Multi-scale flow of affine couplings with an exact density.

"Density estimation using Real NVP", Laurent Dinh, Jascha Sohl-Dickstein, Samy Bengio, 2016 (ICLR 2017),
arXiv:1605.08803.

Idea: an invertible map whose Jacobian is triangular turns pixels into Gaussian noise, so the change of variables gives
the density exactly and the inverse draws samples in one pass. Each coupling scales and shifts one half of the
coordinates by functions of the other half; squeezing trades space for channels and half of the coordinates leave at
every scale.

Legend: `x` integers, `y` dequantised point of [0, 1)^D, `h` hidden point, `z` latent with base N(0, I), `s, t`
log-scale and shift, `alpha` margin of the logit transform.

Departures:
- Actnorm (Glow, arXiv:1807.03039) stands in place of batch normalisation between couplings: the density of one example
  does not depend on its batch, and training and evaluation share one map.
- The conditioners have no batch or weight normalisation (and hence no L2 penalty on its gains) and no skip connections
  from every block to the output; residual branches start at zero instead.
- The logit transform is logit(alpha + (1 - 2 alpha) y); the paper's formula alpha + (1 - alpha) y reaches logit(1).
- Samples outside [0, 1) go to the end bins. The mass that the flow puts there is lost to the likelihood, never gained.
- Every scale but the last is squeezed while at least 4 pixels a side remain; the paper preset squeezes once, as for
  CIFAR-10.
- Vectors, which the paper has none of, have couplings on every other coordinate in turn, with MLPs, at one scale.
- `smoke` and `small` run the checkerboard conditioners on 2x2 blocks of pixels (`patch`) and use fewer blocks; they and
  `vector` average weights, clip gradients and let the learning rate fall along a cosine. Images are never flipped in
  training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Margin, Positive, Several, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.actnorm import ActNorm
from genbench.nn.bijection import Bijection
from genbench.nn.coupling import (
    AffineCoupling,
    channel_mask,
    checkerboard_mask,
    factor_in,
    factor_out,
    squeeze,
    unsqueeze,
)
from genbench.nn.vector_flow import VectorFlow
from genbench.prob.dequantization import from_logits, to_logits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MIN_SIDE = 4
"""Pixels a side of the last scale (Sec. 3.6)."""


class ResidualBlock(nn.Module):
    """Pre-activation residual block that starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = _zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        residual: Tensor = self.second(F.relu(self.first(F.relu(h))))
        return h + residual


class ResidualNet(nn.Module):
    """Conditioner `s, t`: a residual network whose output starts at zero (Sec. 4.1).

    Args:
        num_channels: channels C of the flow; in C, out 2C.
        width: hidden feature maps.
        num_blocks: residual blocks.
        patch: side of the blocks of pixels that become one position of the network.
    """

    def __init__(self, num_channels: int, width: int, num_blocks: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(num_channels * patch**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(num_blocks)))
        self.head = _zeroed(nn.Conv2d(width, 2 * num_channels * patch**2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2C, H, W)."""
        h = self.stem(F.pixel_unshuffle(x, self.patch))
        h = self.blocks(h)
        return F.pixel_shuffle(self.head(F.relu(h)), self.patch)


class Couplings(Bijection):
    """Couplings with alternating masks, each behind an actnorm.

    Args:
        mask: the mask of the given parity.
        num_couplings: number of couplings.
        num_channels: channels of the flow here.
        make_conditioner: builds one network from C to 2C channels.
    """

    def __init__(
        self,
        mask: Callable[[int], Tensor],
        num_couplings: int,
        num_channels: int,
        make_conditioner: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        norms = [ActNorm(num_channels) for _ in range(num_couplings)]
        couplings = [AffineCoupling(mask(k % 2), num_channels, make_conditioner()) for k in range(num_couplings)]
        self.norms = cast("Sequence[ActNorm]", nn.ModuleList(norms))
        self.couplings = cast("Sequence[AffineCoupling]", nn.ModuleList(couplings))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Transformed input and log-determinant: (B, C, H, W) and (B,)."""
        total = h.new_zeros(len(h))
        for norm, coupling in zip(self.norms, self.couplings, strict=True):
            h, norm_log_det = norm(h)
            h, log_det = coupling(h)
            total = total + norm_log_det + log_det
        return h, total

    def inverse(self, h: Tensor) -> Tensor:
        """Input whose transformed form is `h`: (B, C, H, W)."""
        for norm, coupling in zip(reversed(self.norms), reversed(self.couplings), strict=True):
            h = norm.inverse(coupling.inverse(h))
        return h

    def initialise(self, h: Tensor) -> Tensor:
        """Start every actnorm from the statistics of `h` where it stands; returns the transformed input."""
        for norm, coupling in zip(self.norms, self.couplings, strict=True):
            norm.initialise(h)
            h = coupling(norm(h)[0])[0]
        return h


class Scale(Bijection):
    """Checkerboard couplings, squeeze, channel-wise couplings (Sec. 3.6)."""

    def __init__(self, fine: Couplings, coarse: Couplings) -> None:
        super().__init__()
        self.fine = fine
        self.coarse = coarse

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, 4C, H/2, W/2), and the log-determinant (B,)."""
        h, fine_log_det = self.fine(h)
        h, coarse_log_det = self.coarse(squeeze(h))
        return h, fine_log_det + coarse_log_det

    def inverse(self, h: Tensor) -> Tensor:
        """(B, 4C, H/2, W/2) to (B, C, H, W)."""
        return self.fine.inverse(unsqueeze(self.coarse.inverse(h)))

    def initialise(self, h: Tensor) -> Tensor:
        """As `Couplings.initialise`."""
        return self.coarse.initialise(squeeze(self.fine.initialise(h)))


class Scales(Bijection):
    """The logit transform, then scale after scale, each of which half of the coordinates leave (Sec. 3.6, 4.1).

    The logit is a part of the map, so that log-determinants add up from the pixels on.

    Args:
        shape: (C, H, W) of the images.
        config: sizes.
    """

    def __init__(self, shape: tuple[int, ...], config: RealNVP.Config) -> None:
        super().__init__()
        self.shape, self.config, self.alpha = shape, config, config.alpha
        C, H, W = shape
        scales: list[Scale] = []
        for k in range(_num_squeezes(H, config.num_squeezes)):
            fine = self._checkerboard(config.checkerboard_couplings, (C, H, W), k)
            scales.append(Scale(fine, self._channelwise((4 * C, H // 2, W // 2), k + 1)))
            C, H, W = 2 * C, H // 2, W // 2  # half of the squeezed channels leave
        self.scales = cast("Sequence[Scale]", nn.ModuleList(scales))
        self.last = self._checkerboard(config.final_couplings, (C, H, W), len(scales))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points of [0, 1]^D to latents, those that leave first come first, and log-determinants: (B, D) and (B,)."""
        h, log_det = to_logits(x, self.alpha)
        parts: list[Tensor] = []
        for scale in self.scales:
            h, scale_log_det = scale(h)
            left, h = factor_out(h)
            parts.append(left.flatten(1))
            log_det = log_det + scale_log_det
        h, last_log_det = self.last(h)
        return torch.cat([*parts, h.flatten(1)], dim=1), log_det + last_log_det

    def inverse(self, y: Tensor) -> Tensor:
        """Points (B, C, H, W) of latents, for most in [0, 1]."""
        shapes = self._latent_shapes()
        parts = y.split([math.prod(shape) for shape in shapes], dim=1)
        pieces = [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        h = self.last.inverse(pieces[-1])
        for scale, left in zip(reversed(self.scales), reversed(pieces[:-1]), strict=True):
            h = scale.inverse(factor_in(left, h))
        return from_logits(h, self.alpha)

    def initialise(self, x: Tensor) -> Tensor:
        """Every actnorm by what the maps before it make of the batch."""
        h, _ = to_logits(x, self.alpha)
        parts: list[Tensor] = []
        for scale in self.scales:
            left, h = factor_out(scale.initialise(h))
            parts.append(left.flatten(1))
        return torch.cat([*parts, self.last.initialise(h).flatten(1)], dim=1)

    def _latent_shapes(self) -> list[tuple[int, int, int]]:
        """Shapes of what leaves at each scale, the last one included."""
        C, H, W = self.shape
        num = len(self.scales)
        left = [(C * 2 ** (k + 1), H >> (k + 1), W >> (k + 1)) for k in range(num)]
        return [*left, (C << num, H >> num, W >> num)]

    def _checkerboard(self, num_couplings: int, shape: tuple[int, int, int], depth: int) -> Couplings:
        c, (C, H, W) = self.config, shape
        patch = c.patch if H % c.patch == 0 else 1
        return Couplings(
            lambda parity: checkerboard_mask(H, W, parity),
            num_couplings,
            C,
            lambda: ResidualNet(C, c.width * c.width_growth**depth, c.num_blocks, patch),
        )

    def _channelwise(self, shape: tuple[int, int, int], depth: int) -> Couplings:
        c, C = self.config, shape[0]
        return Couplings(
            lambda parity: channel_mask(C, parity),
            c.channel_couplings,
            C,
            lambda: ResidualNet(C, c.width * c.width_growth**depth, c.num_blocks, 1),
        )


@register_model("realnvp")
class RealNVP(ExactFlow):
    """Real-valued non-volume-preserving flow; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and optimisation; the defaults are the paper's for CIFAR-10."""

        width: Count = 64
        """Feature maps of the conditioners at full resolution, or their units for vectors."""
        width_growth: Count = 2
        """Factor on `width` at every squeeze."""
        num_blocks: Count = 8
        """Residual blocks in each conditioner."""
        num_squeezes: Whole = 1
        """Scales before the last one; fewer where the picture is too small."""
        checkerboard_couplings: Count = 3
        channel_couplings: Count = 3
        final_couplings: Count = 4
        """Checkerboard couplings of the last scale."""
        vector_couplings: Several = 8
        """Couplings of vectors, on every other coordinate in turn."""
        patch: Count = 1
        """Side of the blocks of pixels on which the checkerboard conditioners work; 1 where it does not divide."""
        alpha: Margin = 0.05
        lr: Positive = 1e-3
        """Adam's default."""
        batch_size: Count = 64
        clip_norm: Positive | None = None
        warmup_steps: Whole = 0
        final_lr_share: Share = 1.0
        ema_decay: Fraction | None = None

    presets: ClassVar[dict[str, DataclassInstance]] = {
        "smoke": Config(
            width=32,
            width_growth=1,
            num_blocks=1,
            checkerboard_couplings=2,
            channel_couplings=2,
            final_couplings=2,
            patch=2,
            lr=8e-3,
            clip_norm=5.0,
            warmup_steps=20,
            final_lr_share=0.05,
            ema_decay=0.98,
        ),
        "small": Config(
            width=32,
            width_growth=1,
            num_blocks=1,
            num_squeezes=2,
            patch=2,
            lr=8e-3,
            clip_norm=5.0,
            warmup_steps=50,
            final_lr_share=0.05,
            ema_decay=0.99,
        ),
        "vector": Config(
            lr=3e-3,
            batch_size=256,
            clip_norm=5.0,
            warmup_steps=50,
            final_lr_share=0.05,
            ema_decay=0.99,
        ),
        "paper": Config(),
    }

    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if spec.kind == "image":
            self.flow: Bijection = Scales(spec.shape, config)
        elif spec.num_dims < 2:
            raise SettingError("`realnvp` couples the dimensions of vectors, and found 1")
        else:
            self.flow = VectorFlow(spec.num_dims, width=config.width, num_couplings=config.vector_couplings)

    def to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points as they are: the logit of pixels is a part of the flow."""
        return y, y.new_zeros(())

    def from_line(self, h: Tensor) -> Tensor:
        """Points as they are."""
        return h

    def log_base(self, z: Tensor) -> Tensor:
        """Log-density of latents (B, D) under N(0, I): (B,)."""
        return -0.5 * (z.square() + math.log(2.0 * math.pi)).sum(1)


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with weight and bias at zero."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def _num_squeezes(side: int, wanted: int) -> int:
    """Squeezes that leave a whole number of pixels, and at least `MIN_SIDE`."""
    possible = 0
    while possible < wanted and side % 2 == 0 and side // 2 >= MIN_SIDE:
        side, possible = side // 2, possible + 1
    return possible
