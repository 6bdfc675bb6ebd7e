"""Mean flow: the average velocity between two times, so that one step goes from noise to data.

Mean Flows for One-step Generative Modeling. Zhengyang Geng, Mingyang Deng, Xingjian Bai, J. Zico Kolter, Kaiming He,
2025. arXiv:2505.13447

A flow needs many steps because its velocity changes on the way. The average velocity over the whole way needs one. It
obeys an identity that holds no integral, only its own derivative along the path, and a network that is trained to obey
it has learned the average.

Legend, with the paper's clock: `x` data, images in [-1, 1], `eps` noise, `t` time from data at 0 to noise at 1, `r` an
earlier time, z_t = (1 - t) x + t eps, `v` = eps - x velocity given the example, `u(z_t, r, t)` average velocity:

    (t - r) u(z_t, r, t) = integral of v(z_s, s) ds over s in [r, t]               (Eq. 3)
    u(z_t, r, t) = v(z_t, t) - (t - r) du/dt,    du/dt = v dz u + dt u             (Eq. 6, 8: the identity)
    z_r = z_t - (t - r) u(z_t, r, t)                                               (Eq. 12)

The derivative du/dt is one forward-mode product of the network with the tangent (v, 0, 1) in (z, r, t); it has no
gradient of its own (Eq. 9-11). The squared error Delta^2 of an example is divided by (Delta^2 + c)^p, held constant
(Sec. 4.3, loss metrics).

At r = t the average is the velocity itself. `Sampling.solver` `mean` takes `num_steps` steps of Eq. 12; the others
solve the flow of u(z, t, t). `log_likelihood` is the density of that flow, an estimate of that of one-step samples.

**Departures**
- Guidance, which the paper builds into the target, is left out: the model is unconditional, as the paper's on CIFAR-10.
- The derivative is asked for only where r < t, in a pass of its own, whose dropout masks are drawn anew.
- The network is the U-Net of DDPM in the sizes of the authors' DDPM++, with the embedding of t - r added to that of t:
  no rescaled skips, no filtered resampling, no augmentation of the training images.
- `smoke` and `small` use narrow networks, higher learning rates and shorter averages, for a thousand training steps,
  and train on uniformly noised integers, the data whose density the likelihood asks for. Their times, intervals and
  power are those of the paper for ImageNet: with those for CIFAR-10, which `paper` has, few of so few steps reach the
  noise that one step starts from. `small` stacks 2x2 pixels.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import LikelihoodEstimate, Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Real, Share, Whole
from genbench.models._noised_data import over
from genbench.models._velocity_model import VelocityModel, logit_normal_times
from genbench.nn.embedding import TimeEmbedding
from genbench.nn.time_mlp import TimeMLP
from genbench.nn.unet import UNet

TINY = 1e-3
"""c of the adaptive weight."""


class AverageVelocity(nn.Module):
    """u(z, r, t): a network told t, and t - r beside it.

    Args:
        backbone: of z, scaled times and vectors added to their embedding.
        time_scale: factor of times before their embedding.
    """

    def __init__(self, backbone: UNet | TimeMLP, time_scale: float) -> None:
        super().__init__()
        self.backbone, self.time_scale = backbone, time_scale
        self.interval = TimeEmbedding(backbone.embed.dim, backbone.embedding_dim)

    def forward(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Average velocity over [r, t] (B,) of the paths that are at z (B, ...) at time t: the shape of `z`."""
        u: Tensor = self.backbone(z, self.time_scale * t, self.interval(self.time_scale * (t - r)))
        return u


@register_model("mean_flow")
class MeanFlow(VelocityModel, LikelihoodEstimate):
    """An average velocity, learned from its identity."""

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
        time_scale: Positive = 1.0
        """Factor of times before the sinusoidal embedding."""
        dequantised: bool = True
        """Train on uniformly noised integers; of no effect on vectors."""
        interval_share: Share = 0.75
        """Share of training examples with r < t; the others learn the velocity itself."""
        logit_mean: Real = -2.0
        """Mean of the logits of r and t, before the larger of them is called t."""
        logit_std: Positive = 2.0
        power: NonNegative = 0.75
        """p of the adaptive weight; 0 is the squared error itself."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the flow is solved."""

        solver: Literal["mean", "euler", "midpoint", "heun2", "rk4", "dopri5"] = "mean"
        """`mean` takes steps of the average velocity; the others solve the flow of the velocity itself."""
        num_steps: Count = 1
        tolerance: Positive = 1e-5
        """Of `dopri5`, relative and absolute."""
        likelihood_solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "rk4"
        """Of the flow from data to noise with its density."""
        likelihood_steps: Count = 16
        likelihood_tolerance: Positive = 1e-5
        exact_divergence_dims: Whole = 8
        """Images of at most so many dimensions have the exact divergence, as vectors do; others Hutchinson's."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1, interval_share=0.25, logit_mean=-0.4, logit_std=1.0, power=1.0),
        "small": Config(interval_share=0.25, logit_mean=-0.4, logit_std=1.0, power=1.0),
        "vector": Config(lr=6.0e-3, ema_decay=0.99, batch_size=256),
        "paper": Config(
            width=128,
            multipliers=(2, 2, 2),
            num_blocks=4,
            attention_resolution=16,
            dropout=0.2,
            patch=1,
            time_scale=1.0,
            dequantised=False,
            lr=6.0e-4,
            warmup_steps=10_000,
            final_lr_share=1.0,
            ema_decay=0.99995,
            batch_size=1024,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(likelihood_steps=8),
        "small": Sampling(),
        "vector": Sampling(),
        "paper": Sampling(likelihood_solver="dopri5"),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.average = AverageVelocity(self.make_network(), config.time_scale)

    @property
    def network(self) -> nn.Module:
        """The network of u."""
        return self.average

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity from noise to data, -u(x, 1 - t, 1 - t): the shape of `x`; here t runs from noise to data."""
        now = 1.0 - t
        u: Tensor = self.average(x, now, now)
        return -u

    def loss(self, batch: Batch, player: str) -> Loss:
        """E |Delta|^2 / (|Delta|^2 + c)^p with Delta = u(z, r, t) - (v - (t - r) du/dt) (Eq. 9, 10)."""
        x = self.for_training(batch)
        eps = torch.randn_like(x)
        r, t = self.times(len(x), x.device)
        z, v = torch.lerp(x, eps, over(t, x)), eps - x
        count = round(self.config.interval_share * len(x))
        far = slice(0, count)
        target = torch.cat([self.target(z[far], v[far], r[far], t[far]), v[count:]])
        square = (self.average(z, r, t) - target).square().flatten(1).sum(1)
        loss = (square / (square.detach() + TINY).pow(self.config.power)).mean()
        return Loss(loss, {"squared_error": square.detach().mean() / self.spec.num_dims})

    def times(self, num: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Times r and t of training, r < t in the first share and r = t in the rest: (num,) each."""
        c = self.config
        one, other = (logit_normal_times(num, device, mean=c.logit_mean, std=c.logit_std) for _ in range(2))
        r, t = torch.minimum(one, other), torch.maximum(one, other)
        apart = torch.arange(num, device=device) < round(c.interval_share * num)
        return torch.where(apart, r, t), t

    @torch.no_grad()
    def target(self, z: Tensor, v: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Right side of the identity, v - (t - r) du/dt, without gradient: the shape of `z`.

        Args:
            z: (B, ...).
            v: (B, ...), velocity at z.
            r: (B,).
            t: (B,).
        """
        _load_forward_mode()
        tangents = (v, torch.zeros_like(r), torch.ones_like(t))
        # no fused attention has a forward-mode derivative, and differences of averages suffer in bfloat16
        with sdpa_kernel(SDPBackend.MATH), torch.autocast(z.device.type, enabled=False):
            slope: Tensor = torch.func.jvp(self.average, (z, r, t), tangents)[1]
        return v - over(t - r, z) * slope

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Go from noise to data by the solver of `sampling`: (N, *shape), uint8 for images."""
        z = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        if self.sampling.solver != "mean":
            return self.as_data(self.flow(z))
        K = self.sampling.num_steps
        for step in range(K):
            r, t = (z.new_full((num_samples,), 1.0 - done / K) for done in (step + 1, step))
            z = self.jump(z, r, t)
        return self.as_data(z)

    def jump(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Where paths that are at `z` at times `t` (B,) are at earlier times `r` (B,): the shape of `z` (Eq. 12)."""
        u: Tensor = self.average(z, r, t)
        return z - over(t - r, z) * u


@functools.cache
def _load_forward_mode() -> None:
    """Use forward mode for the first time, when torch warns that it calls a deprecated function of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
