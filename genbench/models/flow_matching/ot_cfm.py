"""Flow matching between noise and data that optimal transport has paired, batch by batch.

Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport. Alexander Tong,
Kilian Fatras, Nikolay Malkin, Guillaume Huguet, Yanlei Zhang, Jarrid Rector-Brooks, Guy Wolf, Yoshua Bengio, 2023.
arXiv:2302.00482

Lines between independent noise and data cross, and where they cross the velocity is a mean of directions: paths bend.
Pairs of least total squared distance do not cross. Solved for each batch, they make paths nearly straight, targets that
vary less, and in the limit of large batches the flow of dynamic optimal transport.

Legend: `x0` noise, `x1` data, images in [-1, 1], `t` time from noise at 0 to data at 1, `pi` coupling of a batch of
noise with a batch of data, x_t = (1 - t) x0 + t x1 + sigma eps and the target u = x1 - x0 with (x0, x1) ~ pi
(Sec. 3.2).

`coupling` chooses pi: `exact` is the assignment, `entropic` a draw from the plan of Sinkhorn for each example, with
`epsilon` the weight of the entropy, `independent` the paper's I-CFM, to compare with.

**Departures**
- Pairs of `exact` are the assignment itself, so that all noise and all data of a batch are used once. The authors' code
  draws pairs from the plan with replacement, which has the same mean and leaves a third of the examples out.
- The Schroedinger bridge of the paper (SB-CFM), a Brownian bridge on entropic pairs, is left out.
- With sigma > 0 both ends have that noise added; samples start from N(0, I) all the same.
- Conditions are left out: of the noise that is paired with the data of one class, the law is no longer N(0, I).
- `smoke` and `small` use narrow networks, higher learning rates and shorter averages, for a thousand training steps,
  and train on uniformly noised integers, the data whose density the likelihood asks for. `small` stacks 2x2 pixels.
- No image is flipped at random. `paper` has the sizes and training of the authors' code for CIFAR-10.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import DequantisedLikelihood, Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._noised_data import over
from genbench.models._velocity_model import VelocityModel
from genbench.prob.minibatch_transport import drawn_pairing, entropic_plan, exact_pairing


@register_model("ot_cfm")
class OTCFM(VelocityModel, DequantisedLikelihood):
    """A velocity learned from pairs of noise and data at the least squared distance."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: Count = 1
        """Residual blocks per level."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels."""
        vector_width: Count = 128
        """Of the layers of the MLP that vectors have in place of the U-Net."""
        vector_blocks: Count = 3
        """Residual blocks of that MLP."""
        time_scale: Positive = 100.0
        """Factor of times before the sinusoidal embedding."""
        dequantised: bool = True
        """Train on uniformly noised integers; of no effect on vectors."""
        coupling: Literal["exact", "entropic", "independent"] = "exact"
        """Which noise goes with which data."""
        epsilon: Positive = 0.2
        """Weight of the entropy of `entropic`, as a share of what pairs differ by (`prob.minibatch_transport`)."""
        sigma: NonNegative = 0.0
        """Standard deviation around the line from noise to data."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How the flow is solved."""

        solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "midpoint"
        """The first four take `num_steps` even steps, the last chooses its own."""
        num_steps: Count = 25
        tolerance: Positive = 1e-5
        """Of `dopri5`, relative and absolute."""
        likelihood_solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "rk4"
        """Of the flow from data to noise with its density."""
        likelihood_steps: Count = 16
        likelihood_tolerance: Positive = 1e-5
        exact_divergence_dims: Whole = 8
        """Images of at most so many dimensions have the exact divergence, as vectors do; others Hutchinson's."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1),
        "small": Config(),
        "vector": Config(lr=6.0e-3, ema_decay=0.99, batch_size=256),
        "paper": Config(
            width=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention_resolution=16,
            num_heads=4,
            dropout=0.1,
            patch=1,
            time_scale=1.0,
            dequantised=False,
            lr=2.0e-4,
            warmup_steps=5000,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=10, likelihood_steps=8),
        "small": Sampling(),
        "vector": Sampling(),
        "paper": Sampling(solver="dopri5", likelihood_solver="dopri5"),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.net = self.make_network()

    @property
    def network(self) -> nn.Module:
        """The network of v."""
        return self.net

    def loss(self, batch: Batch, player: str) -> Loss:
        """E |v(x_t, t) - (x1 - x0)|^2 over coupled pairs, a mean over dimensions."""
        x1 = self.for_training(batch)
        x0 = self.coupled(torch.randn_like(x1), x1)
        t = torch.rand(len(x1), device=x1.device)
        x_t = torch.lerp(x0, x1, over(t, x1))
        if self.config.sigma > 0.0:
            x_t = x_t + self.config.sigma * torch.randn_like(x1)
        mse = (self.velocity(x_t, t) - (x1 - x0)).square().mean()
        return Loss(mse, {"flow_matching": mse.detach()})

    def coupled(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Noise in the order of the data it goes with: the shape of `x0`; draws from the global stream."""
        if self.config.coupling == "independent":
            return x0
        if self.config.coupling == "exact":
            return x0[exact_pairing(x0, x1)]
        return x0[drawn_pairing(entropic_plan(x0, x1, epsilon=self.config.epsilon))]
