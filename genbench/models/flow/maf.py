"""Autoregressive flow that reads data in one pass: exact densities fast, samples dimension after dimension.

"Masked Autoregressive Flow for Density Estimation", George Papamakarios, Theo Pavlakou, Iain Murray, 2017 (NIPS 2017),
arXiv:1705.07057.

Idea: an autoregressive model with Gaussian conditionals turns data into the noise that would have drawn them. What is
not yet white in that noise is modelled by the next such model, in another order. All conditionals of one model come
from one pass through a masked network.

Legend: `x` data, `u` noise of one layer, `t` mean and `s` log standard deviation of a conditional, `z` latent with base
N(0, I):

    u_i = (x_i - t_i) exp(-s_i),    t_i, s_i functions of x_1 .. x_{i-1},    log |det du/dx| = -sum_i s_i   (Sec. 3.1)

Every other layer reads the dimensions from the last to the first. A sample needs the dimensions before it for each one,
yet no more work than one pass: see `nn.made`.

**Departures**
- Actnorm (Glow, arXiv:1807.03039) before every layer, in place of batch normalisation after it: the density of one
  example does not depend on its batch.
- Conditionals start as N(0, 1), and s is bounded by 5 tanh(s / 5): unbounded, one outlier can end a training. No
  penalty on weights (1e-6 in the authors' code) and no early stopping; Adam has the usual decays.
- The logit of pixels is taken of alpha + (1 - 2 alpha) y, as in the paper; pixels are read in the order of the tensor,
  channel after channel, row after row, and orders of degrees are never drawn at random.
- `smoke`, `small` and `vector` use narrow networks, higher learning rates and averaged weights. `paper` is MAF(5) for
  MNIST and `paper_vector` MAF(10) for the larger tables, by the authors' code.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Margin, Positive, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.autoregressive_flow import Autoregressive
from genbench.nn.bijection import Bijection, Chain, Flatten, Normalise, Reverse
from genbench.nn.elementwise_maps import Standardise


@register_model("maf")
class MAF(ExactFlow):
    """Masked autoregressive flow; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings; the defaults are the authors' for MNIST, MAF(5)."""

        num_flows: Count = 5
        """Layers; the paper has 5 or 10."""
        num_layers: Count = 2
        """Hidden layers of each network; the paper has 1 or 2."""
        width: Count = 1024
        """Units of each hidden layer; the authors have 100, 512 or 1024 for tables, 1024 or 2048 for pictures."""
        alpha: Margin | None = 1.0e-6
        """Margin of the logit of pixels, 0.05 for CIFAR-10 in the paper; None has them on [-1, 1]."""
        lr: Positive = 1.0e-4
        warmup_steps: Whole = 0
        final_lr_share: Share = 1.0
        clip_norm: Positive | None = None
        ema_decay: Fraction | None = None
        batch_size: Count = 100

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(
            num_flows=3,
            num_layers=1,
            width=256,
            alpha=0.05,
            lr=2.0e-3,
            warmup_steps=20,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.98,
        ),
        "small": Config(
            width=512,
            alpha=0.05,
            lr=1.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
        ),
        "vector": Config(
            num_flows=8,
            width=64,
            lr=3.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
            batch_size=256,
        ),
        "paper": Config(),
        "paper_vector": Config(num_flows=10, width=512),
    }
    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        D, parts = spec.num_dims, list[Bijection]()
        for number in range(config.num_flows):
            parts += [Reverse()] if number else []
            parts += [Normalise(D), Autoregressive(D, Standardise(), width=config.width, num_layers=config.num_layers)]
        self.flow = Chain(Flatten(spec.shape), *parts)
