"""Variational diffusion: the bound on the likelihood as the loss, with a noise schedule that is learned too.

Variational Diffusion Models. Diederik P. Kingma, Tim Salimans, Ben Poole, Jonathan Ho, 2021. arXiv:2107.00630

A diffusion model is a deep variational autoencoder whose encoder only adds noise. In continuous time its bound is an
integral of the denoising error over the log signal-to-noise ratio, so that between its two ends the schedule changes
nothing but the variance of the loss; the ends are learned with the bound, and the rest to lower that variance.

Legend: `x` integers, `x_0` the same in [-1, 1], `t` time in 0 .. 1, `gamma(t)` = -log SNR(t), rising, `z` noised data
alpha x_0 + sigma eps with sigma^2 = sigmoid(gamma) and alpha^2 = sigmoid(-gamma), `eps_hat` the network's noise,
`T` number of steps of the discrete bound, `s(t)` = (gamma(t) - gamma_0) / (gamma_1 - gamma_0) in 0 .. 1.

-log p(x) <= KL(q(z_1|x) || N(0, I)) - E log p(x|z_0) + 1/2 E gamma'(t) |eps - eps_hat|^2    (Sec. 3 and 5)

In T steps the last, the diffusion term, is T/2 E expm1(gamma(t) - gamma(t - 1/T)) |eps - eps_hat|^2 (Sec. 4), which
falls to the above as T grows.

**Departures**
- Pixels are scaled to [-1, 1] with both ends taken, so that levels lie 2 / (levels - 1) apart.
- The network is this suite's U-Net, and a residual MLP for vectors; in `paper` the U-Net has the authors' 32 blocks
  at full resolution both ways and attention in the middle alone. `smoke` and `small` halve maps on the way, have no
  Fourier features, learn faster and average for shorter; `small` stacks 2x2 pixels into channels.
- `smoke` and `small` start from the v of Salimans and Ho (2022, arXiv:2202.00512), eps_hat = alpha v + sigma z, where
  the authors have eps_hat = z + F; the loss is the same. They clip estimates of the data to [-1, 1] in sampling.
- `paper` is the authors' setting for CIFAR-10, where the schedule is a straight line with learned ends (`ends`); the
  setting `variance` is the paper's way to learn the rest of it.
- Gradients are clipped to a norm of 1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, IterativeSampler, LikelihoodBound, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Real, Share, Whole
from genbench.models._noised_data import unet_or_mlp
from genbench.nn.monotone_schedule import MonotoneSchedule
from genbench.prob import diffusion_bound
from genbench.prob.noise_schedule import NoiseLevels
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.ddim import ddim

TIME_SCALE = 1000.0
"""Of s(t) before the sinusoidal embedding."""
RECONSTRUCTED = 8
"""One example in so many of a training batch has its reconstruction term evaluated: the network has no part in it, and
of every level of every pixel it would cost as much as the network."""


@register_model("vdm")
class VDM(GenerativeModel, LikelihoodBound, IterativeSampler):
    """Diffusion trained on its variational bound, schedule included.

    `log_likelihood` is minus the bound of one draw of the noise, and of `likelihood_evaluations` times for each image,
    one from each stratum: an unbiased estimate.
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
        """Residual blocks of the MLP."""
        output: Literal["noise", "velocity"] = "velocity"
        """What the U-Net returns: eps_hat - z, or v, of which eps_hat = alpha v + sigma z."""
        fourier: tuple[int, ...] = ()
        """Exponents n of the features sin(2^n pi z) and cos(2^n pi z) beside z."""
        schedule: Literal["fixed", "ends", "bound", "variance"] = "variance"
        """A straight line; one with learned ends; a monotone network and ends learned by the bound; or the ends by the
        bound and the network by the variance of the loss."""
        schedule_units: Count = 64
        """Sigmoids of the monotone network."""
        gamma_0: Real = -13.3
        """-log SNR of the data; where the training starts, if ends are learned."""
        gamma_1: Real = 5.0
        """-log SNR of the noise."""
        num_timesteps: Count | None = None
        """T of the loss; None is continuous time."""
        lr: Positive = 4.0e-3
        weight_decay: NonNegative = 0.0
        beta_2: Fraction = 0.99
        """Of Adam."""
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

        def __post_init__(self) -> None:
            if self.schedule == "variance" and self.num_timesteps is not None:
                raise ValueError(
                    "in discrete time the schedule changes the bound: learn it by `bound`, not by `variance`"
                )
            if not self.gamma_0 < self.gamma_1:
                raise ValueError(f"gamma rises from data to noise, found {self.gamma_0} to {self.gamma_1}")

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the bound is evaluated."""

        num_steps: Count = 50
        """Network evaluations per sample, at even times."""
        eta: Share = 1.0
        """Share of the ancestral noise in a step; 1 draws from the model, 0 follows its probability flow."""
        clipped: bool = True
        """Clip estimates of images to [-1, 1] on the way."""
        bound_steps: Count | None = None
        """T of the bound; None is continuous time."""
        likelihood_evaluations: Count = 20
        """Times at which the diffusion term is evaluated for each image; at most T."""

    takes = ("image", "vector")
    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1),
        "small": Config(),
        "paper": Config(
            width=128,
            multipliers=(1,),
            num_blocks=32,
            attention_resolution=1,
            dropout=0.1,
            patch=1,
            output="noise",
            fourier=(7, 8),
            schedule="ends",
            schedule_units=1024,
            lr=2.0e-4,
            weight_decay=0.01,
            warmup_steps=100,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=25),
        "small": Sampling(),
        "paper": Sampling(num_steps=1000, clipped=False, likelihood_evaluations=128),
    }
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        self.config, self.levels = config, spec.levels
        self.sampling = self.Sampling()
        self.schedule = MonotoneSchedule(
            config.gamma_0,
            config.gamma_1,
            units=config.schedule_units if config.schedule in ("bound", "variance") else 0,
            learned_ends=config.schedule != "fixed",
        )
        self.net = unet_or_mlp(spec, config, owner="vdm", features=1 + 2 * len(config.fourier))

    @property
    def network(self) -> nn.Module:
        """A U-Net, or an MLP."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """One player: network and schedule."""
        player = Player(
            name="vdm",
            modules=(self.net, self.schedule),
            lr=self.config.lr,
            betas=(0.9, self.config.beta_2),
            weight_decay=self.config.weight_decay,
            clip_norm=1.0,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """The bound in bits per dimension, at times spread evenly over the batch from one draw."""
        x_0, T = self._points(batch.x), self.config.num_timesteps
        places = torch.arange(len(x_0), device=x_0.device) / len(x_0)
        t = (torch.rand((), device=x_0.device) + places) % 1.0
        bits = 1.0 / (self.spec.num_dims * math.log(2.0))
        if T is None:
            diffusion = self._continuous_term(x_0, t, None, scaled_by=bits)
        else:
            diffusion = T * self._discrete_term(x_0, (t * T).floor() + 1.0, T, None)
        reconstruction = self._reconstruction_term(batch.x[::RECONSTRUCTED], x_0[::RECONSTRUCTED], None)
        parts = {"prior": self._prior_term(x_0), "reconstruction": reconstruction, "diffusion": diffusion}
        terms = {name: bits * term.mean() for name, term in parts.items()}
        total = torch.stack(list(terms.values())).sum()
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Walk from z_1 to z_0 and take the likeliest data: (N, C, H, W), uint8, or vectors (N, D)."""
        levels = self._levels(self.sampling.num_steps)
        z_1 = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        z_0 = ddim(self.denoise, z_1, levels, eta=self.sampling.eta, generator=generator)
        x_0 = z_0 / float(levels.alpha[-1])
        return x_0 if self.levels is None else to_uint8(x_0, self.levels)

    def denoise(self, z: Tensor, share: Tensor) -> Tensor:
        """Estimate x_0 = (z - sigma eps_hat) / alpha, clipped where `sampling` says so: the shape of `z`.

        Args:
            z: (B, C, H, W) float.
            share: (B,) values of s(t).
        """
        share = share.to(z.dtype)
        first, gap = self.schedule.ends()
        alpha, sigma = _alpha_sigma(first + gap * share, z)
        x_0 = (z - sigma * self._noise_in(z, share, alpha, sigma)) / alpha
        return x_0.clamp(-1.0, 1.0) if self.sampling.clipped and self.levels is not None else x_0

    @property
    def likelihood_estimator(self) -> str:
        """The bound, in which time, and how much of it is evaluated."""
        T, K = self.sampling.bound_steps, self.sampling.likelihood_evaluations
        if T is None:
            return f"variational bound in continuous time, {K} evaluations"
        return f"variational bound, {min(K, T)} of {T} terms"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Minus the bound: (B,), nats."""
        x_0 = self._points(x)
        ends = self._prior_term(x_0) + self._reconstruction_term(x, x_0, generator)
        return -(ends + self._diffusion_term(x_0, generator)).float()

    def _diffusion_term(self, x_0: Tensor, generator: Generator) -> Tensor:
        """The integral or the sum over time, one draw from each stratum: (B,), nats."""
        T, K = self.sampling.bound_steps, self.sampling.likelihood_evaluations
        total = torch.zeros(len(x_0), device=x_0.device)
        if T is None:
            for k in range(K):
                u = torch.rand(len(x_0), generator=generator, device=x_0.device)
                total += self._continuous_term(x_0, (k + u) / K, generator) / K
            return total
        for first, after in diffusion_bound.strata(1, T + 1, min(K, T)):
            i = torch.randint(first, after, (len(x_0),), generator=generator, device=x_0.device)
            total += (after - first) * self._discrete_term(x_0, i.float(), T, generator)
        return total

    def _continuous_term(
        self, x_0: Tensor, t: Tensor, generator: Generator | None, *, scaled_by: float = 1.0
    ) -> Tensor:
        """1/2 gamma'(t) |eps - eps_hat|^2: (B,), nats.

        Where the schedule is learned by `variance`, its shape gets the gradient of the square of the term, in units of
        `scaled_by` nats, in place of that of the term, whose mean does not depend on it.
        """
        share, slope = self.schedule.shape(t)
        term = 0.5 * self.schedule.ends()[1] * slope * self._error(x_0, share, generator)
        if self.config.schedule == "variance" and share.requires_grad:
            twice = 2.0 * scaled_by * term.detach()
            for given in (share, slope):
                given.register_hook(lambda gradient: twice * gradient)
        return term

    def _discrete_term(self, x_0: Tensor, i: Tensor, T: int, generator: Generator | None) -> Tensor:
        """1/2 expm1(gamma(i/T) - gamma((i-1)/T)) |eps - eps_hat|^2, the divergence of step i = 1 .. T: (B,), nats."""
        share, before = self.schedule.shape(i / T)[0], self.schedule.shape((i - 1.0) / T)[0]
        ratio = torch.expm1(self.schedule.ends()[1] * (share - before))
        return 0.5 * ratio * self._error(x_0, share, generator)

    def _error(self, x_0: Tensor, share: Tensor, generator: Generator | None) -> Tensor:
        """|eps - eps_hat|^2 at the noise level of s(t): (B,)."""
        first, gap = self.schedule.ends()
        alpha, sigma = _alpha_sigma(first + gap * share, x_0)
        eps = _noise(x_0, generator)
        z = alpha * x_0 + sigma * eps
        return (eps - self._noise_in(z, share, alpha, sigma)).square().flatten(1).sum(1)

    def _noise_in(self, z: Tensor, share: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """eps_hat: the shape of `z`."""
        angles = [2.0**n * math.pi * z for n in self.config.fourier]
        features = torch.cat([z, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], dim=1)
        out: Tensor = self.net(features, TIME_SCALE * share)
        return z + out if self.config.output == "noise" else alpha * out + sigma * z

    def _prior_term(self, x_0: Tensor) -> Tensor:
        """KL(q(z_1|x) || N(0, I)): (B,), nats."""
        first, gap = self.schedule.ends()
        alpha, sigma = torch.sigmoid(-first - gap).sqrt(), torch.sigmoid(first + gap).sqrt()
        return diffusion_bound.prior_term(x_0.square().flatten(1).sum(1), x_0[0].numel(), alpha=alpha, sigma=sigma)

    def _reconstruction_term(self, x: Tensor, x_0: Tensor, generator: Generator | None) -> Tensor:
        """-log p(x|z_0): (B,), nats; p(x_i|z_0) is q(z_0|x_i) scaled to sum to 1 over the levels of a pixel.

        Of floats it is N(x; z_0 / alpha_0, sigma_0^2 / alpha_0^2 I), and its mean over z_0 is taken.
        """
        std = torch.exp(0.5 * self.schedule.ends()[0])  # sigma_0 / alpha_0
        if self.levels is None:
            return (0.5 * self.spec.num_dims * (1.0 + math.log(2.0 * math.pi) + 2.0 * std.log())).expand(len(x))
        seen = x_0 + std * _noise(x_0, generator)
        places = to_signed(torch.arange(self.levels, device=x_0.device), self.levels)
        logits = -0.5 * ((seen[..., None] - places) / std).square()  # (B, C, H, W, levels)
        chosen = logits.gather(-1, x.long()[..., None]).squeeze(-1)
        return (logits.logsumexp(-1) - chosen).flatten(1).sum(1)

    def _points(self, x: Tensor) -> Tensor:
        """x_0: integers in [-1, 1], vectors as they are."""
        return x.float() if self.levels is None else to_signed(x, self.levels)

    def _levels(self, num_steps: int) -> NoiseLevels:
        """Even times from 1 down to 0: the walk ends at z_0, and its times are s(t)."""
        t = torch.linspace(1.0, 0.0, num_steps + 1, device=self.schedule.first.device)
        first, gap = self.schedule.ends()
        share = self.schedule.shape(t)[0].double().cpu()
        gamma = first.double().cpu() + gap.double().cpu() * share
        return NoiseLevels(t=share[:-1], alpha=torch.sigmoid(-gamma).sqrt(), sigma=torch.sigmoid(gamma).sqrt())


def _alpha_sigma(gamma: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of data and noise at gamma (B,), shaped to go with `x`."""
    gamma = gamma.view(-1, *[1] * (x.ndim - 1))
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()


def _noise(x: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
