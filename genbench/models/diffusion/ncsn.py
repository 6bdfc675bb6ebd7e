"""Scores of data at many noise levels, and Langevin dynamics from the most noise to the least.

Generative Modeling by Estimating Gradients of the Data Distribution. Yang Song, Stefano Ermon, 2019. arXiv:1907.05600

The score of a law, the gradient of its log-density, is hard to learn where there are no data and hard to follow where
the law is thin. Noise fills both gaps: one network learns the scores of data with L levels of noise by denoising (its
target's mean given the noised image is the score; Vincent 2011), and Langevin dynamics run through the levels.

Legend: `x` noised image, `y` clean image in [-1, 1], `z` noise of x = y + sigma z, `sigma_1` > ... > `sigma_L` a
geometric sequence, `eps_hat` the network's noise, score = -eps_hat / sigma, `S` standard deviation of the data, `K`
steps of Langevin dynamics at each level.

loss = 1/2 E_i E sigma_i^2 |score(x, sigma_i) + (x - y) / sigma_i^2|^2 = 1/2 E_i E |z - eps_hat|^2   (Eq. 5 and 6)

**Departures**
- The network is this suite's U-Net, or a residual MLP for vectors, and not a RefineNet with conditional instance
  normalisation; it is told log sigma and its input is scaled to unit variance.
- Pixels lie in [-1, 1], so that levels are twice the authors'; the loss is a mean over dimensions.
- Chains start from N(0, sigma_1^2 I), not from uniform noise, and end with a denoising step, without which the last
  noise stays in the picture (Jolicoeur-Martineau et al. 2020, arXiv:2009.05475).
- `smoke` and `small` take many levels that start from much more noise, as Song and Ermon advise later (2020,
  arXiv:2006.09011, Techniques 1, 2 and 5), and average weights. There the network returns F of
  eps_hat = (sigma v - S F) / sqrt(sigma^2 + S^2), v = x / sqrt(sigma^2 + S^2) (Karras et al. 2022, arXiv:2206.00364),
  which is easier to learn; the loss is the same. They take S for 1, where pixels have about 0.5: the output then keeps
  more of the input, and backgrounds are clean after a minute's training. `small` stacks 2x2 pixels into channels.
- `paper` has no average of weights, as the paper, but clips gradients to a norm of 1 and flips no image.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, IterativeSampler, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Several, Share, Whole
from genbench.models._noised_data import over, unet_or_mlp
from genbench.prob.noise_schedule import NoiseLevels
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.annealed_langevin import annealed_langevin

NOISE_SCALE = 2.5
"""Of log sigma before the sinusoidal embedding; log sigma runs over about 7."""


@register_model("ncsn")
class NCSN(GenerativeModel, IterativeSampler):
    """Noise-conditional score network, of images of integers or of vectors. It knows no likelihood."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: Count = 1
        """Residual blocks per level of the U-Net."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels."""
        vector_width: Count = 128
        """Of the layers of the MLP that vectors have in place of the U-Net."""
        vector_blocks: Count = 3
        """Residual blocks of the MLP."""
        num_levels: Several = 60
        """L."""
        sigma_max: Positive = 20.0
        """sigma_1, which should reach from any image to any other (Song and Ermon 2020, Technique 1)."""
        sigma_min: Positive = 0.02
        """sigma_L."""
        data_std: Positive = 1.0
        """S, for pixels in [-1, 1]."""
        output: Literal["noise", "velocity"] = "velocity"
        """What the network returns: eps_hat, or F of eps_hat = (sigma v - S F) / sqrt(sigma^2 + S^2)."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction | None = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn."""

        steps_per_level: Count = 5
        """K."""
        step_size: Positive = 0.4
        """Of a step, as a share of the level's variance: epsilon / sigma_L^2 in the paper's terms."""

    takes = ("image", "vector")
    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1, num_levels=30, sigma_max=10.0),
        "small": Config(),
        "paper": Config(
            width=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention_resolution=16,
            patch=1,
            num_levels=10,
            sigma_max=2.0,
            data_std=0.5,
            output="noise",
            lr=1.0e-3,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=None,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(),
        "small": Sampling(),
        "paper": Sampling(steps_per_level=100, step_size=0.2),
    }
    sampling: Sampling
    sigmas: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        self.config, self.pixel_levels = config, spec.levels
        self.sampling = self.Sampling()
        self.register_buffer("sigmas", self.noise_levels().t.float(), persistent=False)  # (L,)
        self.net = unet_or_mlp(spec, config, owner="ncsn")

    @property
    def network(self) -> nn.Module:
        """The U-Net, or the MLP."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """One player."""
        player = Player(
            name="network",
            modules=(self.net,),
            lr=self.config.lr,
            clip_norm=1.0,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def noise_levels(self) -> NoiseLevels:
        """sigma_1 .. sigma_L, evenly spaced in their logarithms, and the data; times are the levels themselves."""
        c = self.config
        share = torch.linspace(0.0, 1.0, c.num_levels, dtype=torch.float64)
        sigma = c.sigma_max * (c.sigma_min / c.sigma_max) ** share
        one = torch.ones(1, dtype=torch.float64)
        return NoiseLevels(t=sigma, alpha=one.expand(c.num_levels + 1), sigma=torch.cat([sigma, torch.zeros_like(one)]))

    def loss(self, batch: Batch, player: str) -> Loss:
        """1/2 E sigma^2 |score + (x - y) / sigma^2|^2 over all levels alike, a mean over dimensions (Eq. 6)."""
        y = batch.x if self.pixel_levels is None else to_signed(batch.x, self.pixel_levels)
        sigma = self.sigmas[torch.randint(0, self.config.num_levels, (len(y),), device=y.device)]
        z = torch.randn_like(y)
        error = (z - self.noise_in(y + over(sigma, y) * z, sigma)).square().mean()
        return Loss(0.5 * error, {"denoising": error.detach()})

    def noise_in(self, x: Tensor, sigma: Tensor) -> Tensor:
        """eps_hat: the shape of `x`.

        Args:
            x: (B, ...) float, y with noise.
            sigma: (B,) levels of the noise.
        """
        sigma, S = sigma.to(x.dtype), self.config.data_std
        norm = over((sigma.square() + S**2).sqrt(), x)
        raw: Tensor = self.net(x / norm, NOISE_SCALE * sigma.log())
        if self.config.output == "noise":
            return raw
        return (over(sigma, x) * x / norm - S * raw) / norm

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Gradient of the log-density of noised data: the shape of `x`; arguments as those of `noise_in`."""
        return -self.noise_in(x, sigma) / over(sigma.to(x.dtype), x)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate y = x - sigma eps_hat: the shape of `x`; arguments as those of `noise_in`."""
        return x - over(sigma.to(x.dtype), x) * self.noise_in(x, sigma)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Follow annealed Langevin dynamics (Algorithm 1): (N, C, H, W), uint8, or vectors (N, D)."""
        noise = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        y = annealed_langevin(
            self.denoise,
            self.config.sigma_max * noise,
            self.noise_levels(),
            steps_per_level=self.sampling.steps_per_level,
            step_size=self.sampling.step_size,
            generator=generator,
        )
        return y if self.pixel_levels is None else to_uint8(y, self.pixel_levels)
