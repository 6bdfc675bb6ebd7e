"""Flow matching: the velocity between noise and data, learned by regression on straight or diffusion paths.

Flow Matching for Generative Modeling. Yaron Lipman, Ricky T. Q. Chen, Heli Ben-Hamu, Maximilian Nickel, Matt Le, 2023.
arXiv:2210.02747

A flow carries noise to data along a velocity that nobody knows. But given one example the velocity towards it is known,
and its mean over all examples that a point could belong to is the velocity that is wanted: regression on the known
finds the unknown, with no equation to solve in training.

Legend: `x0` noise, `x1` data, images in [-1, 1], `t` time from noise at 0 to data at 1, `v` velocity,
`alpha` and `sigma` factors of data and noise at t: x_t = alpha x1 + sigma x0, and the target is
u = alpha' x1 + sigma' x0 (Eq. 11, Theorem 3, at x = x_t).

`path` chooses. `straight` has alpha = t, sigma = 1 - (1 - sigma_min) t (Eq. 20), the displacement of optimal transport
between N(0, I) and N(x1, sigma_min^2 I); sigma_min = 0 ends at the data themselves. `diffusion` has the variance
preserving path of Song et al. (arXiv:2011.13456), run backwards (Eq. 18): alpha = exp(-T(1-t) / 2), sigma^2 = 1 -
alpha^2, T(s) = s^2 (beta_max - beta_min) / 2 + s beta_min. It ends at t = 1 - 1e-5, as the velocity has no limit at 1.

`times` draws t evenly, or by the logit-normal law, which visits the middle more often (Esser et al. 2024,
arXiv:2403.03206; their t runs the other way, so that their mean is minus this one).

With `condition` the network is told a class or a caption, and `guidance` exaggerates it (Ho and Salimans 2022,
arXiv:2207.12598): mixing velocities mixes scores alike, as each is affine in E[x1 | x_t] (Zheng et al. 2023,
arXiv:2311.13443). Samples that nobody asks for take conditions of training examples, and the likelihood is that of the
network without a condition.

**Departures**
- `smoke` and `small` use narrow networks, higher learning rates and averaged weights, for a thousand training steps,
  and train on uniformly noised integers, the data whose density the likelihood asks for. `small` stacks 2x2 pixels.
- The paper's rate of learning falls to zero by a polynomial, here by a cosine; its weights are not said to be averaged.
- Times are enlarged by `time_scale` before the embedding; sigma_min and the average of `paper` are guesses.
- Vectors of floats have a residual MLP and the exact divergence, where the paper's points have a plain MLP.
- Conditions and guidance are not the paper's.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import DequantisedLikelihood, Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Real, Share, Whole
from genbench.models._conditional_sampling import conditioner_for
from genbench.models._noised_data import over
from genbench.models._velocity_model import VelocityModel, logit_normal_times

BETA_MIN, BETA_MAX = 0.1, 20.0
"""Of the diffusion path (Appendix E)."""
DIFFUSION_END = 1.0 - 1e-5
"""Last time of the diffusion path (Appendix E)."""


class Path(NamedTuple):
    """Factors of data and noise at times (B,), and their slopes: (B,) each."""

    alpha: Tensor
    sigma: Tensor
    alpha_slope: Tensor
    sigma_slope: Tensor


def straight(t: Tensor, *, sigma_min: float) -> Path:
    """The path of Eq. 20: alpha = t, sigma = 1 - (1 - sigma_min) t."""
    slope = sigma_min - 1.0
    return Path(t, 1.0 + slope * t, torch.ones_like(t), torch.full_like(t, slope))


def diffusion(t: Tensor) -> Path:
    """The variance preserving path of Eq. 18, for t below 1."""
    s = 1.0 - t
    beta = BETA_MIN + s * (BETA_MAX - BETA_MIN)
    total = 0.5 * s.square() * (BETA_MAX - BETA_MIN) + s * BETA_MIN  # T(s), the integral of beta
    alpha, sigma = torch.exp(-0.5 * total), (-torch.expm1(-total)).sqrt()
    return Path(alpha, sigma, 0.5 * beta * alpha, -0.5 * beta * alpha.square() / sigma)


@register_model("flow_matching")
class FlowMatching(VelocityModel, DequantisedLikelihood):
    """A velocity learned from independent pairs of noise and data."""

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
        path: Literal["straight", "diffusion"] = "straight"
        sigma_min: Fraction = 0.0
        """Standard deviation around each example at the end of the straight path."""
        times: Literal["uniform", "logit_normal"] = "uniform"
        """Law of t in training."""
        logit_mean: Real = 0.0
        """Mean of the logit of t; above 0 is nearer the data."""
        logit_std: Positive = 1.0
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an example."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        text_encoder: str = ""
        """Name or folder of a frozen text encoder of Hugging Face's, in place of one that is trained along."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

        def __post_init__(self) -> None:
            if not 0.0 <= self.sigma_min < 1.0:
                raise ValueError(f"sigma_min lies in [0, 1), found {self.sigma_min}")

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How the flow is solved."""

        solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "midpoint"
        """The first four take `num_steps` even steps, the last chooses its own."""
        num_steps: Count = 25
        tolerance: Positive = 1e-5
        """Of `dopri5`, relative and absolute."""
        guidance: NonNegative = 1.0
        """s: 1 follows the condition as trained, 0 ignores it, more exaggerates it at twice the evaluations."""
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
            width=256,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention_resolution=16,
            num_heads=4,
            patch=1,
            time_scale=1000.0,
            dequantised=False,
            sigma_min=1e-5,
            lr=5.0e-4,
            warmup_steps=45_000,
            final_lr_share=0.0,
            ema_decay=0.9999,
            batch_size=256,
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
        self.last_time = DIFFUSION_END if config.path == "diffusion" else 1.0
        self.net = self.make_network()
        self.conditioner = conditioner_for(
            spec, config, self.net.embedding_dim, owner="flow_matching", text_encoder=config.text_encoder
        )

    @property
    def network(self) -> nn.Module:
        """The network of v."""
        return self.net

    @property
    def guidance(self) -> float:
        """That of `sampling`."""
        return self.sampling.guidance

    def path(self, t: Tensor) -> Path:
        """Factors of data and noise at times (B,), and their slopes."""
        return diffusion(t) if self.config.path == "diffusion" else straight(t, sigma_min=self.config.sigma_min)

    def times(self, num: int, device: torch.device) -> Tensor:
        """Times of training (num,), from the global stream."""
        c = self.config
        if c.times == "uniform":
            return self.last_time * torch.rand(num, device=device)
        return self.last_time * logit_normal_times(num, device, mean=c.logit_mean, std=c.logit_std)

    def loss(self, batch: Batch, player: str) -> Loss:
        """E |v(x_t, t) - u|^2, a mean over dimensions (Eq. 9)."""
        x1 = self.for_training(batch)
        x_t, t, u = self.regression(torch.randn_like(x1), x1)
        mse = (self.velocity_given(x_t, t, self.told_in_training(batch)) - u).square().mean()
        return Loss(mse, {"flow_matching": mse.detach()})

    def regression(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points on the paths between `x0` and `x1` (B, ...), their times (B,), and the velocities there (B, ...)."""
        t = self.times(len(x1), x1.device)
        alpha, sigma, alpha_slope, sigma_slope = (over(factor, x1) for factor in self.path(t))
        return alpha * x1 + sigma * x0, t, alpha_slope * x1 + sigma_slope * x0
