"""Rectified flow: straight lines from noise to data, and reflow, which makes the paths themselves straight.

Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow. Xingchao Liu, Chengyue Gong,
Qiang Liu, 2022. arXiv:2209.03003

A velocity is fitted to lines between independent noise and data. Its flow couples each noise with one end, no longer
independent and at no greater cost. A second flow fitted to lines between these pairs is straighter than the first, so
that a few large steps follow it.

Legend: `x0` noise, `x1` data, images in [-1, 1], `t` time from noise at 0 to data at 1, x_t = (1 - t) x0 + t x1,
`v` velocity, `Z` a path of the flow, dZ = v(Z, t) dt. `first` is the paper's 1-rectified flow, `second` its
2-rectified flow, which starts as a copy of the first and learns from its pairs (Z_0, Z_1) alone (Algorithm 1).
Straightness is S = integral of E |Z_1 - Z_0 - v(Z_t, t)|^2 over t, 0 where all paths are straight.

**Departures**
- Pairs of the first flow are made while the second learns, a batch every `pair_every` steps, and the last
  `pair_batches` of them are drawn from. The paper makes millions beforehand.
- Both flows come out of one training; `reflow_share` of the examples seen counts for the second. Without it there is
  no second flow, as in the paper's first table.
- A first flow that has learned nothing yet, v = 0, couples nothing: the pairs are then independent noise and data.
- Distillation into one step is left out, and so are flows beyond the second, and conditions.
- `smoke` and `small` use narrow networks, higher learning rates and shorter averages, for a thousand training steps,
  and train on uniformly noised integers, the data whose density the likelihood asks for. `small` stacks 2x2 pixels.
- The network is the U-Net of DDPM in the sizes of the authors' DDPM++: no rescaled skips. No image is flipped.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import DequantisedLikelihood, Loss, Phase, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._noised_data import over
from genbench.models._velocity_model import VelocityModel
from genbench.samplers.ode import Solver, solve


@register_model("rectified_flow")
class RectifiedFlow(VelocityModel, DequantisedLikelihood):
    """One flow from independent pairs, and a straighter one from the pairs that the first makes.

    Samples and likelihoods are those of the second flow as soon as it has begun to learn.
    """

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
        reflow_share: Fraction = 0.4
        """Share of the examples seen that counts for the second flow; 0 leaves it out."""
        pair_solver: Literal["euler", "midpoint", "heun2", "rk4"] = "midpoint"
        """Of the first flow, where it makes pairs."""
        pair_steps: Count = 12
        pair_every: Count = 8
        """Training steps from one batch of new pairs to the next."""
        pair_batches: Count = 64
        """Of pairs, kept to be drawn from."""
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
            num_blocks=4,
            attention_resolution=16,
            dropout=0.15,
            patch=1,
            time_scale=999.0,
            dequantised=False,
            pair_solver="rk4",
            pair_steps=25,
            pair_batches=512,
            lr=2.0e-4,
            warmup_steps=5000,
            final_lr_share=1.0,
            ema_decay=0.999999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=5, likelihood_steps=8),
        "small": Sampling(num_steps=8),
        "vector": Sampling(num_steps=8),
        "paper": Sampling(solver="dopri5", likelihood_solver="dopri5"),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.first = self.make_network()
        self.second = self.make_network() if config.reflow_share > 0.0 else None
        self.begun = False  # of the second flow; part of the saved state
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.pair_batches)
        self._steps = 0  # of the second flow

    def get_extra_state(self) -> Tensor:
        """Whether the second flow has begun, for `state_dict`."""
        return torch.tensor(self.begun)

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `get_extra_state` gave."""
        self.begun = bool(state)

    @property
    def network(self) -> nn.Module:
        """The network of v, of the second flow where it has begun."""
        return self.second if self.second is not None and self.begun else self.first

    def phases(self) -> tuple[Phase, ...]:
        """The first flow, and then the second."""
        share, size = self.config.reflow_share, self.config.batch_size
        first = Phase(name="flow", share=1.0 - share, players=(self.player("flow", self.first),), batch_size=size)
        if self.second is None:
            return (first,)
        return (
            first,
            Phase(name="reflow", share=share, players=(self.player("reflow", self.second),), batch_size=size),
        )

    def loss(self, batch: Batch, player: str) -> Loss:
        """E |v(x_t, t) - (x1 - x0)|^2 over the pairs of the player's flow, a mean over dimensions (Eq. 1)."""
        x1 = self.for_training(batch)
        if player != "reflow":
            return self._line_loss(self.first, torch.randn_like(x1), x1)
        assert self.second is not None
        if self.training and torch.is_grad_enabled():
            self._begin(self.second)
            x0, x1 = self._kept_pairs(x1)
        else:
            x0, x1 = self.pairs(torch.randn_like(x1), x1)
        return self._line_loss(self.second, x0, x1)

    @torch.no_grad()
    def pairs(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and where the first flow takes it, or `x0` and `x1` if that has learned nothing: the shape of `x0`."""
        if not self._learned():
            return x0, x1
        trained = self.first.training
        self.first.eval()
        solver = Solver(method=self.config.pair_solver, num_steps=self.config.pair_steps)
        ends = solve(lambda t, x: self._of(self.first, x, t.expand(len(x))), x0, start=0.0, end=1.0, solver=solver)
        self.first.train(trained)
        return x0, ends

    @torch.no_grad()
    def straightness(self, num_samples: int, *, generator: Generator, num_steps: int = 50) -> Tensor:
        """S of the flow in use, a mean over dimensions, from Euler's steps: scalar."""
        x = x0 = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        slopes = []
        for step in range(num_steps):
            slopes.append(self.velocity(x, x.new_full((num_samples,), step / num_steps)))
            x = x + slopes[-1] / num_steps
        return torch.stack([(x - x0 - slope).square().mean() for slope in slopes]).mean()

    def _of(self, network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        v: Tensor = network(x, self.config.time_scale * t)
        return v

    def _line_loss(self, network: nn.Module, x0: Tensor, x1: Tensor) -> Loss:
        t = torch.rand(len(x1), device=x1.device)
        v = self._of(network, torch.lerp(x0, x1, over(t, x1)), t)
        mse = (v - (x1 - x0)).square().mean()
        return Loss(mse, {"flow_matching": mse.detach()})

    def _learned(self) -> bool:
        """Whether the first flow moves anything: its last layer starts at 0."""
        return self.begun or bool(self.first.out.weight.any())

    def _begin(self, second: nn.Module) -> None:
        """Let the second flow start as the first, which has stopped learning."""
        if not self.begun and self._learned():
            second.load_state_dict(self.first.state_dict())
            self.begun = True

    def _kept_pairs(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the pairs at hand, or a new one where it is time."""
        if self._steps % self.config.pair_every == 0:
            self._pairs.append(self.pairs(torch.randn_like(x1), x1))
        self._steps += 1
        return self._pairs[int(torch.randint(len(self._pairs), ()))]  # drawn on the CPU, so that no device is asked
