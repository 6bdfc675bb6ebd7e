"""Diffusion in the design of Karras et al.: a preconditioned denoiser, log-normal noise levels, Heun's method.

Elucidating the Design Space of Diffusion-Based Generative Models. Tero Karras, Miika Aittala, Timo Aila,
Samuli Laine, 2022. arXiv:2206.00364

A denoiser D(x; sigma) learns to take noise of every level off an image. It wraps a network F so that inputs and
targets of F have unit variance at every level, and training spends its effort on the levels in between, where there is
something to learn. Sampling follows the probability flow dx / dsigma = (x - D) / sigma from much noise to none.

Legend: `x` noised data, `y` clean data, images in [-1, 1], `sigma` standard deviation of the noise, which is also the
time, `c_skip`, `c_out`, `c_in`, `c_noise` coefficients of D = c_skip x + c_out F(c_in x; c_noise), `lambda` weight of
a level in the loss.

The likelihood is that of the probability flow from sigma_min to sigma_max, where N(0, sigma_max^2 I) begins. It is
solved for v = c_in x, whose variance is 1 all the way. With sigma = sigma_data tan(phi) the flow is
dv / dphi = -F(v; c_noise): put c_in, c_skip = cos^2 phi and c_out = sigma cos phi into the equation above. Even steps
of w = sqrt(phi), where dv / dw = -2 w F, serve little and much noise alike.

With `condition` F is told a class or a caption, and `guidance` exaggerates it (Ho and Salimans 2022, arXiv:2207.12598):
D is affine in F, so that guiding the one is guiding the other. Samples that nobody asks for take conditions of training
examples, and the likelihood is that of the network without a condition.

**Departures**
- The network is the U-Net of DDPM in the sizes of the authors' DDPM++: no rescaled skips, no filtered resampling, no
  non-leaking augmentation of the training images. Vectors have a residual MLP.
- `smoke` and `small` use narrow networks, higher learning rates and shorter averages, for a thousand training steps,
  and enlarge c_noise before the sinusoidal embedding (`noise_scale`). `small` stacks 2x2 pixels into channels.
- They take `sigma_data` for 1, where the authors have 0.5: c_skip then keeps more of the input, and a network that
  starts at 0 has less to copy. After 300 steps pictures at 0.5 are noise still, and at 1 they show their objects.
- `smoke` and `small` train on uniformly noised integers, the data whose density the likelihood asks for; on 256 levels
  nobody sees the difference. `paper` trains on the integers themselves, as the authors do.
- Conditions are left out of a tenth of the training examples; the authors, who do not guide, leave none out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    DequantisedLikelihood,
    GenerativeModel,
    IterativeSampler,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Real, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.models._noised_data import over, unet_or_mlp
from genbench.prob.dequantization import dequantise_signed
from genbench.prob.karras_levels import karras_levels
from genbench.prob.pixels import to_signed, to_uint8
from genbench.prob.preconditioning import Preconditioning
from genbench.samplers.ddim import ddim
from genbench.samplers.heun import Churn, heun, heun_churn
from genbench.samplers.ode import Solver, solve_with_log_density


@register_model("edm")
class EDM(ConditionalSampling, GenerativeModel, DequantisedLikelihood, IterativeSampler):
    """Preconditioned denoiser on a variance exploding path whose time is the noise level."""

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
        """Residual blocks of the MLP."""
        sigma_data: Positive = 1.0
        """Standard deviation of the data as the coefficients take it, for pixels in [-1, 1]."""
        log_sigma_mean: Real = -1.2
        """P_mean: mean of the normal law of log(sigma) in training."""
        log_sigma_std: Positive = 1.2
        """P_std."""
        noise_scale: Positive = 100.0
        """Factor of c_noise before the sinusoidal embedding; the paper has 1."""
        dequantised: bool = True
        """Train on uniformly noised integers; of no effect on vectors."""
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

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the likelihood is solved."""

        sampler: Literal["heun", "euler", "churn"] = "heun"
        """`heun` and `churn` are Algorithms 1 and 2, `euler` the first without its correction."""
        num_steps: Count = 18
        """Steps; `heun` and `churn` evaluate the network twice in all but the last."""
        sigma_min: Positive = 0.002
        sigma_max: Positive = 80.0
        rho: Positive = 7.0
        """How much denser the levels lie at the small end (Eq. 5)."""
        churn: NonNegative = 30.0
        """S_churn; this and the next three are of Table 5 for CIFAR-10."""
        churn_min: NonNegative = 0.01
        """S_tmin."""
        churn_max: NonNegative = 1.0
        """S_tmax."""
        churn_noise: NonNegative = 1.007
        """S_noise."""
        guidance: NonNegative = 1.0
        """s: 1 follows the condition as trained, 0 ignores it, more exaggerates it at twice the evaluations."""
        likelihood_solver: Literal["heun2", "rk4", "dopri5"] = "rk4"
        """The first two take `likelihood_steps` even steps of w, the last chooses its own."""
        likelihood_steps: Count = 16
        likelihood_tolerance: Positive = 1e-5
        """Of `dopri5`, relative and absolute."""
        exact_divergence_dims: Whole = 8
        """Data of at most so many dimensions have the exact divergence, others Hutchinson's estimate."""

    takes = ("image", "vector")
    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1),
        "small": Config(),
        "paper": Config(
            width=128,
            multipliers=(2, 2, 2),
            num_blocks=4,
            attention_resolution=16,
            dropout=0.13,
            patch=1,
            sigma_data=0.5,
            noise_scale=1.0,
            dequantised=False,
            lr=1.0e-3,
            warmup_steps=19_531,  # 10 million images
            final_lr_share=1.0,
            ema_decay=0.99929,  # a half-life of half a million images
            batch_size=512,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=12, likelihood_steps=12),
        "small": Sampling(),
        "paper": Sampling(likelihood_solver="dopri5"),
    }
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        self.config, self.levels = config, spec.levels
        self.sampling = self.Sampling()
        self.net = unet_or_mlp(spec, config, owner="edm")
        self.conditioner = conditioner_for(
            spec, config, self.net.embedding_dim, owner="edm", text_encoder=config.text_encoder
        )

    @property
    def network(self) -> nn.Module:
        """F, a U-Net or an MLP."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """One player."""
        player = Player(
            name="denoiser",
            modules=self.learners(self.net),
            lr=self.config.lr,
            clip_norm=1.0,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """E lambda |D(y + n; sigma) - y|^2 with lambda = 1 / c_out^2, a mean over dimensions (Eq. 2, Table 1).

        It is the plain squared error of F about (y - c_skip x) / c_out (Eq. 8), the form that is computed.
        """
        y = self._points(batch.x, None, dequantised=self.config.dequantised)
        log_sigma = self.config.log_sigma_mean + self.config.log_sigma_std * torch.randn(len(y), device=y.device)
        sigma = log_sigma.exp()
        x = y + over(sigma, y) * torch.randn_like(y)
        c = Preconditioning.at(sigma, self.config.sigma_data)
        target = (y - over(c.skip, y) * x) / over(c.out, y)
        told = self.told_in_training(batch)
        mse = (self._raw(over(c.into, y) * x, c.noise, told) - target).square().mean()
        return Loss(mse, {"denoising": mse.detach()})

    def denoise(self, x: Tensor, sigma: Tensor, told: Tensor | None = None, *, guidance: float = 1.0) -> Tensor:
        """D(x; sigma), the estimate of y: the shape of `x`.

        Args:
            x: (B, ...) float, y with noise.
            sigma: (B,) levels of the noise, above 0.
            told: (B, dim), vectors of conditions; None is no condition.
            guidance: s, by which they are followed.
        """
        c = Preconditioning.at(sigma.to(x.dtype), self.config.sigma_data)
        return over(c.skip, x) * x + over(c.out, x) * self._raw(over(c.into, x) * x, c.noise, told, guidance)

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Walk from noise to data by the sampler of `sampling`: (N, C, H, W), uint8, or vectors (N, D)."""
        s, told = self.sampling, self.told(condition)
        levels = karras_levels(s.num_steps, sigma_min=s.sigma_min, sigma_max=s.sigma_max, rho=s.rho)
        noise = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        x = s.sigma_max * noise

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.denoise(x, sigma, told, guidance=s.guidance)

        if s.sampler == "heun":
            y = heun(denoise, x, levels)
        elif s.sampler == "euler":
            y = ddim(denoise, x, levels, eta=0.0, generator=generator)
        else:
            churn = Churn(amount=s.churn, lowest=s.churn_min, highest=s.churn_max, noise_scale=s.churn_noise)
            y = heun_churn(denoise, x, levels, churn=churn, generator=generator)
        return y if self.levels is None else to_uint8(y, self.levels)

    @property
    def likelihood_estimator(self) -> str:
        """The probability flow, how it is solved, and how integers become a point."""
        solver = self._solver
        cost = f"{solver.evaluations} evaluations" if solver.evaluations else f"tolerance {solver.rtol:g}"
        trace = "exact divergence" if self._exact else "Hutchinson's divergence"
        point = "" if self.levels is None else ", uniform dequantisation, 1 draw"
        return f"probability-flow ODE, {solver.method}, {cost}, {trace}{point}"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of vectors, or of integers with one draw of noise and the volume of their bins: (B,), nats.

        Of Hutchinson's estimate, the mean over the generator is that log-density.
        """
        log_bin = 0.0 if self.levels is None else math.log(2.0 / (self.levels - 1))
        y = self._points(x, generator, dequantised=True)
        return self.log_density(y, generator=generator) + self.spec.num_dims * log_bin

    def log_density(self, y: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of what the probability flow from N(0, sigma_max^2 I) makes at sigma_min: (B,), nats.

        Args:
            y: (B, ...) float, on the scale of the model, [-1, 1] for images.
            generator: of Hutchinson's signs.
        """
        s, sigma_data = self.sampling, self.config.sigma_data
        shrink = 1.0 / math.hypot(s.sigma_min, sigma_data)  # c_in at sigma_min

        start, end = (math.sqrt(math.atan(sigma / sigma_data)) for sigma in (s.sigma_min, s.sigma_max))

        def flow(w: Tensor, v: Tensor) -> Tensor:
            within = w.clamp(max=end)  # an adaptive solver looks beyond the end, where the tangent has its pole
            sigma = (sigma_data * within.square().tan()).expand(len(v))
            return -2.0 * w * self._raw(v, Preconditioning.at(sigma, sigma_data).noise)

        v, gain = solve_with_log_density(
            flow,
            y * shrink,
            start=start,
            end=end,
            solver=self._solver,
            divergence="exact" if self._exact else "hutchinson",
            generator=generator,
        )
        std = s.sigma_max / math.hypot(s.sigma_max, sigma_data)  # of v at the end
        log_base = -0.5 * ((v / std).square() + math.log(2.0 * math.pi * std**2)).flatten(1).sum(1)
        return log_base - gain + self.spec.num_dims * math.log(shrink)

    @property
    def _solver(self) -> Solver:
        s = self.sampling
        return Solver(
            method=s.likelihood_solver,
            num_steps=s.likelihood_steps,
            rtol=s.likelihood_tolerance,
            atol=s.likelihood_tolerance,
        )

    @property
    def _exact(self) -> bool:
        return self.spec.num_dims <= self.sampling.exact_divergence_dims

    def _raw(self, v: Tensor, c_noise: Tensor, told: Tensor | None = None, guidance: float = 1.0) -> Tensor:
        """F of an input of unit variance: the shape of `v`."""
        return self.output(self.net, v, self.config.noise_scale * c_noise, told, guidance=guidance)

    def _points(self, x: Tensor, generator: Generator | None, *, dequantised: bool) -> Tensor:
        """Vectors as they are; integers in [-1, 1], with noise over their bins, 2 / (levels - 1) wide, or without."""
        if self.levels is None:
            return x.float()
        if not dequantised:
            return to_signed(x, self.levels)
        return dequantise_signed(x, self.levels, generator=generator)
