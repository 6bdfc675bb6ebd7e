"""Denoising diffusion with a U-Net that predicts the noise.

Denoising Diffusion Probabilistic Models. Jonathan Ho, Ajay Jain, Pieter Abbeel, 2020. arXiv:2006.11239

A fixed Markov chain turns an image into Gaussian noise in T small steps; a network learns to tell the noise from the
noised image, and with it every step of the chain can be walked back. The loss weighs all steps equally (L_simple),
which gives up some likelihood for better pictures.

Legend: `x` integers, `x_0` the same in [-1, 1], `t` step 1 .. T (0 is the data), `eps` noise, `alpha` and `sigma`
factors of data and noise at t, `alpha_bar` = alpha^2, `beta` variance added by a step.
Samples may be drawn on a sub-sequence of the steps, by ancestral sampling (Nichol and Dhariwal 2021, arXiv:2102.09672)
or implicitly (Song, Meng and Ermon 2020, arXiv:2010.02502).

With `variance="learned"` the network also returns, for every dimension, where between the two fixed variances its own
lies, and learns it from L_simple + 0.001 L_vlb, the bound in bits per dimension with the mean held constant (Nichol and
Dhariwal, Eq. 15 and 16). `output` is what the network returns and `target` what its squared error is of: noise, data or
velocity; the three errors differ by factors of the noise level alone. With `condition` the network is told a class or
a caption, and `guidance` exaggerates it (Ho and Salimans 2022, arXiv:2207.12598); samples that nobody asks for take
conditions of training examples, and the bound is that of the network without a condition.

**Departures**
- `smoke` and `small` take the cosine schedule of Nichol and Dhariwal, who found that the linear one spends many of its
  steps on almost pure noise at low resolution, and draw on a sub-sequence of the steps; their learning rates and
  averages suit a thousand training steps rather than a million. `paper` does none of this.
- `small` stacks 2x2 pixels into channels before the U-Net and unstacks its output, which makes a step cheaper.
- In `smoke` and `small` the U-Net returns v = alpha eps - sigma x_0 (Salimans and Ho 2022, arXiv:2202.00512), which is
  turned into eps = alpha v + sigma x_t for the same L_simple: after few steps of training, colours drift less.
- No image is flipped at random: that is right for photographs and wrong for digits.
- Convolutions that halve maps pad both sides by one, not one side.
- Images are clipped to [-1, 1] inside the bound as well as in sampling, as the authors' code does.
- `paper` holds the sizes for CIFAR-10; attention moves to the first level of at most 16 px at other resolutions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    GenerativeModel,
    IterativeSampler,
    LikelihoodBound,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.models._conditional_sampling import ConditionalSampling
from genbench.nn.conditioning import Conditioner
from genbench.nn.unet import UNet
from genbench.prob import diffusion_bound, prediction
from genbench.prob.noise_schedule import noise_schedule
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.ddim import ddim
from genbench.samplers.ddpm import ddpm, ddpm_learned

BOUND_WEIGHT = 0.001
"""Of L_vlb beside L_simple (Nichol and Dhariwal, Sec. 3.1)."""


@register_model("ddpm")
class DDPM(ConditionalSampling, GenerativeModel, LikelihoodBound, IterativeSampler):
    """Noise-predicting diffusion in discrete time.

    `log_likelihood` is minus the variational bound (Eq. 5) with all T steps, whatever the sampler's steps. With
    `Sampling.likelihood_steps` None every term is evaluated, T network calls per image. With K, the terms between the
    first and the last are cut into K strata and one is drawn from each: an unbiased estimate of the same bound in
    K + 1 calls, independent for each image.
    """

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: int = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: int = 1
        """Residual blocks per level."""
        attention_resolution: int = 4
        """The first level of maps at most this large attends, as does the bottom."""
        num_heads: int = 1
        dropout: float = 0.0
        patch: int = 2
        """Side of the squares of pixels that are stacked into channels."""
        schedule: Literal["linear", "cosine"] = "cosine"
        output: Literal["noise", "data", "velocity"] = "noise"
        """What the U-Net returns: eps, x_0, or v = alpha eps - sigma x_0, of which eps = alpha v + sigma x_t."""
        target: Literal["noise", "data", "velocity"] = "noise"
        """What the squared error of training is of."""
        variance: Literal["fixed", "learned"] = "fixed"
        """Of the reverse steps."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an image."""
        drop_condition: float = 0.1
        """Share of training examples whose condition is left out."""
        num_timesteps: int = 1000
        """T."""
        lr: float = 4.0e-3
        warmup_steps: int = 50
        final_lr_share: float = 0.1
        ema_decay: float = 0.995
        batch_size: int = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the bound is evaluated."""

        sampler: Literal["ddpm", "ddim"] = "ddim"
        num_steps: int | None = 50
        """Network evaluations per sample; None is T."""
        eta: float = 0.0
        """Share of the ancestral noise in a step of `ddim`."""
        guidance: float = 1.0
        """s: 1 follows the condition as trained, 0 ignores it, more exaggerates it at twice the evaluations."""
        variance: Literal["beta", "beta_tilde"] = "beta_tilde"
        """Variance of a step of `ddpm`; of no effect where it is learned."""
        likelihood_steps: int | None = 20
        """Terms of the bound evaluated between the first and the last, one from each stratum; None is all."""
        likelihood_variance: Literal["beta", "beta_tilde"] = "beta"
        """Variance of the steps in the bound; of no effect where it is learned."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1, output="velocity"),
        "small": Config(output="velocity"),
        "paper": Config(
            width=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention_resolution=16,
            dropout=0.1,
            patch=1,
            schedule="linear",
            lr=2.0e-4,
            warmup_steps=5000,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(sampler="ddpm", num_steps=25),
        "small": Sampling(sampler="ddpm", num_steps=50),
        "paper": Sampling(sampler="ddpm", num_steps=None, variance="beta", likelihood_steps=None),
    }
    sampling: Sampling
    alpha: Tensor
    sigma: Tensor
    log_variances: Tensor
    means: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`ddpm` models images of integers, found data of kind `{spec.kind}`")
        C, H, _ = spec.shape
        self.config, self.levels = config, spec.levels
        self.sampling = self.Sampling()
        self.schedule = noise_schedule(config.schedule, config.num_timesteps)
        self.register_buffer("alpha", self.schedule.alpha.float(), persistent=False)  # (T + 1,)
        self.register_buffer("sigma", self.schedule.sigma.float(), persistent=False)
        steps = self.schedule.steps
        lower = torch.cat([steps.beta_tilde[1:2], steps.beta_tilde[1:]])  # that of the step from t = 1 is 0
        log_variances = torch.stack([steps.beta.log(), lower.log()]).float()
        self.register_buffer("log_variances", log_variances, persistent=False)  # (2, T): log beta, log beta_tilde
        self.register_buffer("means", torch.stack([steps.noisy, steps.data]).float(), persistent=False)  # (2, T)
        self.unet = UNet(
            C,
            C if config.variance == "fixed" else 2 * C,
            resolution=H,
            width=config.width,
            multipliers=config.multipliers,
            num_blocks=config.num_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.num_heads,
            dropout=config.dropout,
            patch=config.patch,
        )
        self.conditioner = None
        if config.condition != "none":
            self.conditioner = Conditioner(
                spec, config.condition, self.unet.embedding_dim, drop_share=config.drop_condition, owner="ddpm"
            )

    @property
    def network(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def phases(self) -> tuple[Phase, ...]:
        """One player, with the clipping and warm-up of the authors' code."""
        player = Player(
            name="unet",
            modules=(self.unet,) if self.conditioner is None else (self.unet, self.conditioner),
            lr=self.config.lr,
            clip_norm=1.0,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """L_simple = E |eps - eps_theta(alpha_t x_0 + sigma_t eps, t)|^2, a mean over dimensions (Eq. 14).

        With a learned variance, L_simple + 0.001 L_vlb.
        """
        x_0 = to_signed(batch.x, self.levels)
        t = torch.randint(1, self.schedule.num_steps + 1, (len(x_0),), device=x_0.device)
        eps = torch.randn_like(x_0)
        x_t = self._noised(x_0, t, eps)
        out, share = self._outputs(x_t, t, self.told_in_training(batch))
        at = self._level(t)
        found = prediction.convert(out, self.config.output, self.config.target, x_t, **at)
        mse = F.mse_loss(found, prediction.truth(self.config.target, x_0, eps, **at))
        if self.config.variance == "fixed":
            return Loss(mse, {"l_simple": mse.detach()})
        guess = prediction.to_data(out.detach(), self.config.output, x_t, **at)
        term = self._learned_term(batch.x, x_0, x_t, t, guess=guess, share=share).mean()
        vlb = self.schedule.num_steps * term / (self.spec.num_dims * math.log(2.0))
        return Loss(mse + BOUND_WEIGHT * vlb, {"l_simple": mse.detach(), "l_vlb": vlb.detach()})

    def sampled(self, num_samples: int, told: Tensor | None, *, generator: Generator) -> Tensor:
        """Walk from noise to images by the sampler of `sampling` (Algorithm 2): (N, C, H, W), uint8."""
        settings = self.sampling
        levels = self.schedule.levels(self.schedule.num_steps if settings.num_steps is None else settings.num_steps)
        x_T = torch.randn((num_samples, *self.spec.shape), generator=generator, device=self.alpha.device)

        def denoise_and_share(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self._denoise_and_share(x_t, t, told)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return denoise_and_share(x_t, t)[0]

        if settings.sampler == "ddim":
            x_0 = ddim(denoise, x_T, levels, eta=settings.eta, generator=generator)
        elif self.config.variance == "learned":
            x_0 = ddpm_learned(denoise_and_share, x_T, levels, generator=generator)
        else:
            x_0 = ddpm(denoise, x_T, levels, variance=settings.variance, generator=generator)
        return to_uint8(x_0, self.levels)

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Estimate x_0 = (x_t - sigma_t eps_theta) / alpha_t, clipped to [-1, 1]: the shape of `x_t`.

        Args:
            x_t: (B, C, H, W) float.
            t: (B,) int64 in 1 .. T.
        """
        return self._denoise_and_share(x_t, t)[0]

    def predict_noise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """eps_theta: the shape of `x_t`; arguments as those of `denoise`."""
        out, _ = self._outputs(x_t, t)
        return prediction.to_noise(out, self.config.output, x_t, **self._level(t))

    def _denoise_and_share(self, x_t: Tensor, t: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimate of x_0, under guidance where the network is told something, and the shares of the variances."""
        out, share = self._outputs(x_t, t, told, guidance=self.sampling.guidance)
        return prediction.to_data(out, self.config.output, x_t, **self._level(t)).clamp(-1.0, 1.0), share

    def _outputs(
        self, x_t: Tensor, t: Tensor, told: Tensor | None = None, *, guidance: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """What the network says of the data, and the shares of its variances; these are empty if nothing is learned."""
        out = self.output(self.unet, x_t, t, told, guidance=guidance, channels=self.spec.shape[0])
        if self.config.variance == "fixed":
            return out, out[:, :0]
        out, signed = out.chunk(2, dim=1)
        return out, 0.5 * (signed + 1.0)

    @property
    def likelihood_estimator(self) -> str:
        """The bound, and how many of its terms are evaluated."""
        T, K = self.schedule.num_steps, self.sampling.likelihood_steps
        return f"variational bound, {T if K is None else min(K, T - 1) + 1} of {T} terms"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Minus the variational bound L_T + sum_t L_{t-1} + L_0: (B,), nats."""
        x_0 = to_signed(x, self.levels)
        between = self._steps_term(x, x_0, generator)
        return -(self._prior_term(x_0) + between + self._decoder_term(x, x_0, generator)).float()

    def _learned_term(self, x: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, *, guess: Tensor, share: Tensor) -> Tensor:
        """The term of the bound of each example's step with learned variances: (B,) nats.

        Args:
            x: (B, C, H, W), integers.
            x_0: the same in [-1, 1].
            x_t: noised to `t`.
            t: (B,) in 1 .. T.
            guess: estimate of x_0.
            share: of the variances.
        """
        log_beta, log_beta_tilde = (_at(of_steps, t - 1) for of_steps in self.log_variances)
        noisy, data = (_at(of_steps, t - 1) for of_steps in self.means)
        log_variance = diffusion_bound.learned_log_variance(share, log_beta, log_beta_tilde)
        gap = data * (x_0 - guess)
        divergence = diffusion_bound.step_divergence(gap, log_variance, log_beta_tilde)
        mean, sigma = noisy * x_t + data * guess, torch.exp(0.5 * log_variance)
        decoder = -diffusion_bound.discretised_gaussian_log_prob(x, mean, sigma, levels=self.levels)
        return torch.where(t[:, None, None, None] == 1, decoder, divergence).flatten(1).sum(1)

    def _prior_term(self, x_0: Tensor) -> Tensor:
        ends = {"alpha": self.schedule.alpha[-1].to(x_0.device), "sigma": self.schedule.sigma[-1].to(x_0.device)}
        return diffusion_bound.prior_term(x_0.double().square().flatten(1).sum(1), x_0[0].numel(), **ends)

    def _steps_term(self, x: Tensor, x_0: Tensor, generator: Generator) -> Tensor:
        """Sum of L_{t-1} over t = 2 .. T, all of it or one t from each stratum."""
        if self.config.variance == "learned":
            return self._learned_steps_term(x, x_0, generator)
        steps, D = self.schedule.steps, x_0[0].numel()
        coefficients = diffusion_bound.step_coefficients(steps, steps.variance(self.sampling.likelihood_variance))
        of_error, of_dims = (coefficient.to(x_0.device) for coefficient in coefficients)
        total = torch.zeros(len(x_0), device=x_0.device, dtype=torch.float64)
        for first, after in self._strata():
            t = torch.randint(first, after, (len(x_0),), generator=generator, device=x_0.device)
            error = self._squared_error(x_0, t, generator).flatten(1).sum(1, dtype=torch.float64)
            total += (after - first) * (of_error[t - 1] * error + of_dims[t - 1] * D)
        return total

    def _learned_steps_term(self, x: Tensor, x_0: Tensor, generator: Generator) -> Tensor:
        """The same with learned variances, which differ from pixel to pixel."""
        total = torch.zeros(len(x_0), device=x_0.device, dtype=torch.float64)
        for first, after in self._strata():
            t = torch.randint(first, after, (len(x_0),), generator=generator, device=x_0.device)
            total += (after - first) * self._learned_term_drawn(x, x_0, t, generator).double()
        return total

    def _learned_term_drawn(self, x: Tensor, x_0: Tensor, t: Tensor, generator: Generator) -> Tensor:
        x_t = self._noised(x_0, t, _noise(x_0, generator))
        guess, share = self._denoise_and_share(x_t, t)
        return self._learned_term(x, x_0, x_t, t, guess=guess, share=share)

    def _strata(self) -> list[tuple[int, int]]:
        """Ranges that cover 2 .. T, narrow at first: the terms fall steeply with t."""
        T, K = self.schedule.num_steps, self.sampling.likelihood_steps
        return diffusion_bound.strata(2, T + 1, T - 1 if K is None else min(K, T - 1))

    def _decoder_term(self, x: Tensor, x_0: Tensor, generator: Generator) -> Tensor:
        """L_0 = -log p(x_0 | x_1), with the variance beta_1 under either choice, as beta_tilde_1 is 0."""
        t = torch.ones(len(x_0), dtype=torch.int64, device=x_0.device)
        if self.config.variance == "learned":
            return self._learned_term_drawn(x, x_0, t, generator).double()
        x_1 = self._noised(x_0, t, _noise(x_0, generator))
        mean = self.denoise(x_1, t).double()
        sigma = float(self.schedule.beta[0].sqrt())
        log_prob = diffusion_bound.discretised_gaussian_log_prob(x, mean, sigma, levels=self.levels)
        return -log_prob.flatten(1).sum(1)

    def _squared_error(self, x_0: Tensor, t: Tensor, generator: Generator) -> Tensor:
        return (x_0 - self.denoise(self._noised(x_0, t, _noise(x_0, generator)), t)).square()

    def _noised(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Draw from q(x_t | x_0) by its closed form (Eq. 4)."""
        return _at(self.alpha, t) * x_0 + _at(self.sigma, t) * eps

    def _level(self, t: Tensor) -> dict[str, Tensor]:
        """Factors of data and noise at the steps `t` (B,), shaped for images."""
        return {"alpha": _at(self.alpha, t), "sigma": _at(self.sigma, t)}


def _at(values: Tensor, t: Tensor) -> Tensor:
    """Values of the steps `t` (B,), shaped for images."""
    return values[t][:, None, None, None]


def _noise(x: Tensor, generator: Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
