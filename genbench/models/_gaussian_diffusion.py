"""What diffusion models in discrete time share: the forward process, losses, samplers, guidance and the bound.

The equations are those of Ho, Jain and Abbeel 2020 (arXiv:2006.11239), whose numbers stand beside them, and for learned
variances of Nichol and Dhariwal 2021 (arXiv:2102.09672). A paper's file adds its network and its settings.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, IterativeSampler, LikelihoodBound, Loss, Phase, Player
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.models._diffusion_settings import SamplingSettings, Settings
from genbench.prob import diffusion_bound, prediction
from genbench.prob.noise_schedule import noise_schedule
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers._protocol import Slope
from genbench.samplers.ddim import ddim
from genbench.samplers.ddpm import ddpm, ddpm_learned
from genbench.samplers.dpm_solver_pp import dpm_solver_pp
from genbench.samplers.heun import heun
from genbench.samplers.predictor_corrector import predictor_corrector

BOUND_WEIGHT = 0.001
"""Of L_vlb beside L_simple (Nichol and Dhariwal, Sec. 3.1)."""


class GaussianDiffusion(ConditionalSampling, GenerativeModel, LikelihoodBound, IterativeSampler):
    """Diffusion in T steps around a network of noised images, times and conditions.

    A subclass sets `sampling`, builds `network` and then calls `make_conditioner`.

    Args:
        spec: of images of integers.
        config: settings of the model.
        clip_norm: of gradients; None leaves them.

    Raises:
        ValueError: the data are no images of integers.
    """

    alpha: Tensor
    sigma: Tensor
    log_variances: Tensor
    means: Tensor

    def __init__(self, spec: DataSpec, config: Settings, *, clip_norm: float | None) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(f"`{name}` models images of integers, found data of kind `{spec.kind}`")
        self.config, self.levels, self.clip_norm = config, spec.levels, clip_norm
        self.schedule = noise_schedule(config.schedule, config.num_timesteps)
        self.register_buffer("alpha", self.schedule.alpha.float(), persistent=False)  # (T + 1,)
        self.register_buffer("sigma", self.schedule.sigma.float(), persistent=False)
        steps = self.schedule.steps
        lower = torch.cat([steps.beta_tilde[1:2], steps.beta_tilde[1:]])  # that of the step from t = 1 is 0
        log_variances = torch.stack([steps.beta.log(), lower.log()]).float()
        self.register_buffer("log_variances", log_variances, persistent=False)  # (2, T): log beta, log beta_tilde
        self.register_buffer("means", torch.stack([steps.noisy, steps.data]).float(), persistent=False)  # (2, T)
        self.conditioner = None

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Noised images (B, C, H, W), times (B,) and vectors of conditions to (B, `num_outputs`, H, W)."""

    @property
    def how(self) -> SamplingSettings:
        """How samples are drawn: `sampling`, of whichever class it is."""
        return cast("SamplingSettings", self.sampling)

    @property
    def num_outputs(self) -> int:
        """Channels that the network returns: C, or as many again for learned variances."""
        return self.spec.shape[0] * (2 if self.config.learned_variance else 1)

    def make_conditioner(self, dim: int, *, text_encoder: str = "") -> None:
        """Where the settings say so, learn vectors (B, dim) of conditions, of captions perhaps behind an encoder."""
        owner = type(self).__module__.rpartition(".")[2]
        self.conditioner = conditioner_for(self.spec, self.config, dim, owner=owner, text_encoder=text_encoder)

    def phases(self) -> tuple[Phase, ...]:
        """One player."""
        players = (self.denoising_player(),)
        return (Phase(name="train", share=1.0, players=players, batch_size=self.config.batch_size),)

    def denoising_player(self) -> Player:
        """Who trains the network, for `denoising_loss`."""
        return Player(
            name="network",
            modules=self.learners(self.network),
            lr=self.config.lr,
            clip_norm=self.clip_norm,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )

    def loss(self, batch: Batch, player: str) -> Loss:
        """The loss of the network."""
        return self.denoising_loss(batch)

    def denoising_loss(self, batch: Batch) -> Loss:
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
        if not self.config.learned_variance:
            return Loss(mse, {"l_simple": mse.detach()})
        guess = prediction.to_data(out.detach(), self.config.output, x_t, **at)
        term = self._learned_term(batch.x, x_0, x_t, t, guess=guess, share=share).mean()
        vlb = self.schedule.num_steps * term / (self.spec.num_dims * math.log(2.0))
        return Loss(mse + BOUND_WEIGHT * vlb, {"l_simple": mse.detach(), "l_vlb": vlb.detach()})

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Walk from noise to images by the sampler of `sampling` (Algorithm 2): (N, C, H, W), uint8."""
        settings, told, slope = self.how, self.told(condition), self.slope(condition)
        num_steps = self.schedule.num_steps if settings.num_steps is None else settings.num_steps
        spaced_by_karras = settings.spacing == "karras" or settings.sampler == "heun"
        levels = self.schedule.karras_levels(num_steps) if spaced_by_karras else self.schedule.levels(num_steps)
        x_T = torch.randn((num_samples, *self.spec.shape), generator=generator, device=self.alpha.device)

        def denoise_and_share(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self._denoise_and_share(x_t, t, told)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return denoise_and_share(x_t, t)[0]

        def climb(x_t: Tensor, t: Tensor) -> Tensor:
            x_0 = denoise(x_t, t)
            if slope is None:
                return x_0
            return prediction.with_slope(x_0, slope(x_t, t), **self._level(t)).clamp(-1.0, 1.0)

        if settings.sampler == "ddim":
            x_0 = ddim(climb, x_T, levels, eta=settings.eta, generator=generator)
        elif settings.sampler == "dpm_solver_pp":
            x_0 = dpm_solver_pp(climb, x_T, levels)
        elif settings.sampler == "heun":
            x_0 = heun(climb, x_T, levels)
        elif settings.sampler == "predictor_corrector":
            x_0 = predictor_corrector(
                climb,
                x_T,
                levels,
                predictor=settings.predictor,
                corrector_steps=settings.corrector_steps,
                snr=settings.snr,
                generator=generator,
            )
        elif self.config.learned_variance:
            x_0 = ddpm_learned(denoise_and_share, x_T, levels, generator=generator, slope=slope)
        else:
            x_0 = ddpm(denoise, x_T, levels, variance=settings.variance, generator=generator, slope=slope)
        return to_uint8(x_0, self.levels)

    def slope(self, condition: Tensor | None) -> Slope | None:
        """What samples climb beside the score of the network, such as a classifier; None is nothing.

        A step of `ddpm` shifts its mean by it (Dhariwal and Nichol 2021, arXiv:2105.05233, Algorithm 1), the other
        samplers add it to the score (Algorithm 2).

        Args:
            condition: what samples are given, labels (B,) or captions (B, T); None is nothing.
        """
        return None

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
        out, share = self._outputs(x_t, t, told, guidance=self.how.guidance)
        return prediction.to_data(out, self.config.output, x_t, **self._level(t)).clamp(-1.0, 1.0), share

    def _outputs(
        self, x_t: Tensor, t: Tensor, told: Tensor | None = None, *, guidance: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """What the network says of the data, and the shares of its variances; these are empty if nothing is learned."""
        out = self.output(self.network, x_t, t, told, guidance=guidance, channels=self.spec.shape[0])
        if not self.config.learned_variance:
            return out, out[:, :0]
        out, signed = out.chunk(2, dim=1)
        return out, 0.5 * (signed + 1.0)

    @property
    def likelihood_estimator(self) -> str:
        """The bound, and how many of its terms are evaluated."""
        T, K = self.schedule.num_steps, self.how.likelihood_steps
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
        if self.config.learned_variance:
            return self._learned_steps_term(x, x_0, generator)
        steps, D = self.schedule.steps, x_0[0].numel()
        coefficients = diffusion_bound.step_coefficients(steps, steps.variance(self.how.likelihood_variance))
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
        T, K = self.schedule.num_steps, self.how.likelihood_steps
        return diffusion_bound.strata(2, T + 1, T - 1 if K is None else min(K, T - 1))

    def _decoder_term(self, x: Tensor, x_0: Tensor, generator: Generator) -> Tensor:
        """L_0 = -log p(x_0 | x_1), with the variance beta_1 under either choice, as beta_tilde_1 is 0."""
        t = torch.ones(len(x_0), dtype=torch.int64, device=x_0.device)
        if self.config.learned_variance:
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
