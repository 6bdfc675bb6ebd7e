"""Volume-preserving flow of additive couplings and one scale for each coordinate, with an exact density.

"NICE: Non-linear Independent Components Estimation", Laurent Dinh, David Krueger, Yoshua Bengio, 2014 (ICLR 2015
workshop), arXiv:1410.8516.

Idea: add to one half of the coordinates a function of the other half. The step is undone by subtracting the same, its
Jacobian has determinant 1 whatever the function, and a few steps with the halves in turn bend space at will. What is
left to decide is how much each coordinate of the latents weighs: a diagonal scale.

Legend: `x` integers, `y` dequantised point, `h` hidden point, `z` latent, `m` the function, an MLP, `S` log-scales.

Coordinates are first put even ones before odd ones, so that neighbours of a picture stand in different halves; then
four couplings change the second, the first, the second, the first half (Sec. 5.1); then z_i = exp(S_i) h_i (Sec. 3.3).
The base is a standard logistic or Gaussian law for each latent (Sec. 3.4).

**Departures**
- Scales start from the first batch, so that every latent has the spread of the base, where the paper starts them at 1.
- Pixels are dequantised and taken as they are, on [-1, 1]; the paper whitens coloured pictures first.
- Adam has the usual decays and a constant rate, where the authors' code has RMSProp with momentum and a falling one.
  `smoke`, `small` and `vector` use narrow networks, higher learning rates and averaged weights, and
  `vector` more couplings.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Margin, Positive, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.bijection import Bijection, Chain, Flatten, Reorder, even_then_odd
from genbench.nn.elementwise_maps import Additive
from genbench.nn.split_coupling import SplitCoupling
from genbench.prob.gaussian import standard_log_prob

LOGISTIC_STD = math.pi / math.sqrt(3.0)
"""Standard deviation of the standard logistic law."""
INITIAL_RANGE = 0.01
"""Of the last weights of each m (authors' code, there of all)."""
MIN_STD = 1e-4
"""A coordinate that is constant in the first batch is divided by this rather than by zero."""
MIN_SHARE = 2.0**-24
"""Distance that uniform numbers keep from 0 and 1, where the logit ends."""


class Scaling(Bijection):
    """z_i = exp(S_i) h_i (Sec. 3.3).

    Args:
        num_dims: D.
        target_std: of each coordinate of the batch that it starts from.
    """

    def __init__(self, num_dims: int, *, target_std: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(num_dims))
        self.target_std = target_std

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D), and the sum of S ()."""
        return x * self.log_scale.exp(), self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """The h = exp(-S) z."""
        return y * (-self.log_scale).exp()

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """The spread of the base for every coordinate of the batch."""
        std = x.std(0, correction=0).clamp(min=MIN_STD)
        self.log_scale.copy_((self.target_std / std).log())
        z: Tensor = self(x)[0]
        return z


@register_model("nice")
class NICE(ExactFlow):
    """Non-linear independent components estimation; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings; the defaults are the authors' for MNIST."""

        base: Literal["logistic", "gaussian"] = "logistic"
        num_couplings: Count = 4
        num_layers: Count = 5
        """Hidden layers of each m, 5 for MNIST."""
        width: Count = 1000
        """Units of each hidden layer, 1000 for MNIST."""
        alpha: Margin | None = None
        """Margin of the logit of pixels; None has them on [-1, 1]."""
        lr: Positive = 1.0e-3
        warmup_steps: Whole = 0
        final_lr_share: Share = 1.0
        clip_norm: Positive | None = None
        ema_decay: Fraction | None = None
        batch_size: Count = 200

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(
            num_layers=2,
            width=128,
            lr=3.0e-3,
            warmup_steps=20,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.98,
            batch_size=64,
        ),
        "small": Config(
            num_layers=3,
            width=256,
            lr=2.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
            batch_size=64,
        ),
        "vector": Config(
            base="gaussian",
            num_couplings=8,
            num_layers=2,
            width=64,
            lr=3.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
            batch_size=256,
        ),
        "paper": Config(),
    }
    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        D = spec.num_dims
        if D < 2:
            raise SettingError("`nice` couples the dimensions of an example, and found 1")
        couplings = [SplitCoupling(D, Additive(), self._mlp, parity=k % 2) for k in range(config.num_couplings)]
        scaling = Scaling(D, target_std=LOGISTIC_STD if config.base == "logistic" else 1.0)
        self.flow = Chain(Flatten(spec.shape), Reorder(even_then_odd(D)), *couplings, scaling)

    def log_base(self, z: Tensor) -> Tensor:
        """Log-density of latents (B, D): log sigmoid(z) + log sigmoid(-z) for the logistic law."""
        if self.config.base == "gaussian":
            return standard_log_prob(z).sum(1)
        return (F.logsigmoid(z) + F.logsigmoid(-z)).sum(1)

    def draw_base(self, num: int, generator: Generator) -> Tensor:
        """Draws from the base: (num, D)."""
        size, device = (num, self.spec.num_dims), generator.device
        if self.config.base == "gaussian":
            return torch.randn(size, generator=generator, device=device)
        u = torch.rand(size, generator=generator, device=device)
        return u.clamp(MIN_SHARE, 1.0 - MIN_SHARE).logit()

    def _mlp(self, passes: int, changes: int) -> nn.Module:
        """m, whose last weights start small: at 0, data whose conditional means are 0 would never move it."""
        width = self.config.width
        layers: list[nn.Module] = [nn.Linear(passes, width), nn.ReLU()]
        for _ in range(self.config.num_layers - 1):
            layers += [nn.Linear(width, width), nn.ReLU()]
        last = nn.Linear(width, changes)
        nn.init.uniform_(last.weight, -INITIAL_RANGE, INITIAL_RANGE)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*layers, last)
