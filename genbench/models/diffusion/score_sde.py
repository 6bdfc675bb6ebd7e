"""Score-based diffusion in continuous time: variance exploding, preserving and sub-preserving.

Score-Based Generative Modeling through Stochastic Differential Equations. Yang Song, Jascha Sohl-Dickstein,
Diederik P. Kingma, Abhishek Kumar, Stefano Ermon, Ben Poole, 2021. arXiv:2011.13456

A stochastic differential equation turns data into noise, and another turns noise back into data once the scores, the
gradients of the log-densities on the way, are known. A network learns them by denoising at random times. The same
scores give an ordinary equation with the same marginals, the probability flow, and with it samples and a likelihood.

Legend: `x` noised data, `x_0` data, `t` time in t_min .. 1, `z` noise of x = alpha x_0 + sigma z, `eps_hat` what the
network makes of it, score = -eps_hat / sigma, `f` and `g` drift and diffusion, `r` = sigma / alpha, `S` standard
deviation of the data, `phi` = arctan(r / S), `v` = x / sqrt(sigma^2 + alpha^2 S^2).

The network sees v and log r, which is all that matters: x / alpha has the same flow, dx / dr = eps_hat, whatever the
equation, so that the three differ in where they start, which times they train on and how they are stepped. Over phi the
flow is dv / dphi = (eps_hat - v sin(phi)) / cos(phi), bounded at both ends, and that form is solved.

With `weighting` "likelihood", errors of the score weigh g^2, so that the loss bounds the likelihood of the reverse
diffusion, and times are drawn with density g^2 / sigma^2 in return (Song, Durkan, Murray and Ermon 2021,
arXiv:2101.09258, Sec. 5), which is evenly in log r.

With `condition` the network is told a class or a caption, and `guidance` exaggerates it (Ho and Salimans 2022,
arXiv:2207.12598). Samples that nobody asks for take conditions of training examples, and the likelihood is that of the
network without a condition.

**Departures**
- The network is the U-Net of DDPM in the sizes of the authors' DDPM++ for VP, and a residual MLP for vectors: no
  rescaled skips, no filtered resampling, no Fourier features. Its input is scaled to unit variance, for data of
  standard deviation S, and it is told log r where the authors tell it t or log sigma.
- `smoke` and `small` use narrow networks, high learning rates and short averages, for a thousand steps. Their network
  returns F of eps_hat = sin(phi) v - cos(phi) F, which Karras et al. (2022, arXiv:2206.00364) found easier to learn;
  errors of F weigh the same (`weighting` "velocity") at times even in phi, where the paper's leave the noise at which
  objects take shape to long trainings; and S is 1, where pixels have about 0.5, which keeps more of the input. They
  train on noised integers, the data whose density the likelihood asks for, and sample by DPM-Solver++. `small` stacks
  2x2 pixels into channels.
- Pixels lie in [-1, 1] for VE too, so that sigma_min and sigma_max are twice the authors'.
- Every sampler ends with a denoising step from t_min, not one of noise.
- The predictor of sub-VP makes the exact step of its own diffusion where the authors take an Euler-Maruyama step.
- The authors guide samples to a class by a classifier of noised images (Sec. 5), not by the network itself.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple

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
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.models._noised_data import over, unet_or_mlp
from genbench.prob.dequantization import dequantise_signed
from genbench.prob.diffusion_sde import DiffusionSDE, SubVariancePreserving, VarianceExploding, VariancePreserving
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.dpm_solver_pp import dpm_solver_pp
from genbench.samplers.euler_maruyama import euler_maruyama
from genbench.samplers.ode import Field, Solver, solve, solve_with_log_density
from genbench.samplers.predictor_corrector import predictor_corrector

NOISE_SCALE = 2.5
"""Of log r before the sinusoidal embedding; log r runs over about 12."""


@register_model("score_sde")
class ScoreSDE(ConditionalSampling, GenerativeModel, DequantisedLikelihood, IterativeSampler):
    """Scores of noised data in continuous time, of images of integers or of vectors.

    `log_likelihood` is the density that the probability flow has at t_min; of vectors it is that of the data
    themselves, of images that of noised integers.
    """

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
        sde: Literal["ve", "vp", "subvp"] = "ve"
        """How data are noised."""
        beta_min: Positive = 0.1
        """Of `vp` and `subvp`."""
        beta_max: Positive = 20.0
        sigma_min: Positive = 0.02
        """Of `ve`."""
        sigma_max: Positive = 100.0
        train_t_min: OpenShare = 1e-5
        """Earliest time in training."""
        data_std: Positive = 1.0
        """S, for pixels in [-1, 1]."""
        output: Literal["noise", "velocity"] = "velocity"
        """What the network returns: eps_hat, or F of eps_hat = sin(phi) v - cos(phi) F."""
        weighting: Literal["score", "likelihood", "velocity"] = "velocity"
        """Of the error of a score: sigma^2, so that errors of the noise weigh the same at all times, g^2, or what makes
        errors of F weigh the same at times even in phi."""
        dequantised: bool = True
        """Train on uniformly noised integers; of no effect on vectors."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an example."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the likelihood is solved."""

        sampler: Literal["euler_maruyama", "predictor_corrector", "ode", "dpm_solver_pp"] = "dpm_solver_pp"
        """The reverse diffusion without or with a corrector, or the probability flow by a general or its own solver."""
        num_steps: Count = 25
        """Levels that are visited; the correctors' and the solvers' evaluations come on top."""
        t_min: OpenShare = 1e-3
        """Where samples are denoised for good; the authors take 1e-5 for `ve`."""
        corrector_steps: Whole = 1
        """Steps of Langevin dynamics at each level."""
        snr: Positive = 0.16
        """Ratio of signal to noise of such a step."""
        guidance: NonNegative = 1.0
        """s: 1 follows the condition as trained, 0 ignores it, more exaggerates it at twice the evaluations."""
        solver: Literal["heun2", "rk4", "dopri5"] = "rk4"
        """Of `ode` and of the likelihood; the first two take even steps of phi, the last chooses its own."""
        solver_tolerance: Positive = 1e-5
        """Of `dopri5`, relative and absolute."""
        likelihood_steps: Count = 16
        """Of the first two solvers."""
        likelihood_t_min: OpenShare = 1e-5
        """Time whose density is taken for that of the data."""
        exact_divergence_dims: Whole = 8
        """Data of at most so many dimensions have the exact divergence, others Hutchinson's estimate."""

    takes = ("image", "vector")
    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1),
        "small": Config(),
        "paper": Config(
            width=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=4,
            attention_resolution=16,
            dropout=0.1,
            patch=1,
            data_std=0.5,
            sde="vp",
            output="noise",
            weighting="score",
            dequantised=False,
            lr=2.0e-4,
            warmup_steps=5000,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=15, likelihood_steps=8),
        "small": Sampling(),
        "paper": Sampling(sampler="euler_maruyama", num_steps=1000, solver="dopri5"),
    }
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        self.config, self.levels = config, spec.levels
        self.sampling = self.Sampling()
        self.sde = _sde(config)
        self.net = unet_or_mlp(spec, config, owner="score_sde")
        self.conditioner = conditioner_for(spec, config, self.net.embedding_dim, owner="score_sde")

    @property
    def network(self) -> nn.Module:
        """The U-Net, or the MLP."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """One player."""
        player = Player(
            name="network",
            modules=self.learners(self.net),
            lr=self.config.lr,
            clip_norm=1.0,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """E lambda |score + z / sigma|^2, a mean over dimensions (Eq. 7).

        With lambda = g^2, half its integral over time is the part `nats_per_dim`, a constant times the total. With
        "velocity" the error of the noise is divided by cos(phi), which makes it that of F.
        """
        x_0 = self._points(batch.x, None, dequantised=self.config.dequantised)
        first, last = self._log_ratios(self.config.train_t_min)
        t = self._times(first, last, torch.rand(len(x_0), device=x_0.device))
        z = torch.randn_like(x_0)
        x = over(self.sde.alpha(t), x_0) * x_0 + over(self.sde.sigma(t), x_0) * z
        error = z - self.noise_in(x, t, self.told_in_training(batch))
        if self.config.weighting == "velocity":
            error = error * over(torch.hypot(self.sde.ratio(t) / self.config.data_std, torch.ones_like(t)), x_0)
        error = error.square().mean()
        bound = {"nats_per_dim": (last - first) * error.detach()} if self.config.weighting == "likelihood" else {}
        return Loss(error, {"denoising": error.detach(), **bound})

    def _times(self, first: float, last: float, u: Tensor) -> Tensor:
        """Times of training by the weighting, between two logarithms of r, at shares u (B,) of the way: (B,)."""
        if self.config.weighting == "score":
            return self.config.train_t_min + (1.0 - self.config.train_t_min) * u
        if self.config.weighting == "likelihood":
            return self.sde.time((first + (last - first) * u).exp())
        start, end = (math.atan(math.exp(log_ratio) / self.config.data_std) for log_ratio in (first, last))
        return self.sde.time(self.config.data_std * (start + (end - start) * u).tan())

    def noise_in(self, x: Tensor, t: Tensor, told: Tensor | None = None) -> Tensor:
        """eps_hat: the shape of `x`.

        Args:
            x: (B, ...) float, noised data.
            t: (B,) times above 0.
            told: (B, dim), vectors of conditions; None is no condition.
        """
        v, sin, cos, raw = self._seen(x, t, told)
        return raw if self.config.output == "noise" else sin * v - cos * raw

    def score(self, x: Tensor, t: Tensor, told: Tensor | None = None) -> Tensor:
        """Gradient of the log-density of noised data: the shape of `x`; arguments as those of `noise_in`."""
        return -self.noise_in(x, t, told) / over(self.sde.sigma(t.to(x.dtype)), x)

    def denoise(self, x: Tensor, t: Tensor, told: Tensor | None = None, *, guidance: float = 1.0) -> Tensor:
        """Estimate x_0 = (x - sigma eps_hat) / alpha, guided by s: the shape of `x`; the rest as of `noise_in`."""
        v, sin, cos, raw = self._seen(x, t, told, guidance)
        if self.config.output == "velocity":
            return self.config.data_std * (cos * v + sin * raw)
        t = t.to(x.dtype)
        return (x - over(self.sde.sigma(t), x) * raw) / over(self.sde.alpha(t), x)

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Walk from noise to data by the sampler of `sampling`: (N, C, H, W), uint8, or vectors (N, D)."""
        s, told = self.sampling, self.told(condition)
        noise = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        x = self.sde.prior_std * noise

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.denoise(x, t, told, guidance=s.guidance)

        if s.sampler == "ode":
            x_0 = self._along_flow(x, told)
        elif s.sampler == "dpm_solver_pp":
            x_0 = dpm_solver_pp(denoise, x, self.sde.log_snr_levels(s.num_steps, t_min=s.t_min))
        elif s.sampler == "euler_maruyama":
            levels = self.sde.even_levels(s.num_steps, t_min=s.t_min)
            x_0 = euler_maruyama(denoise, x, levels, sde=self.sde, generator=generator)
        else:
            levels = self.sde.even_levels(s.num_steps, t_min=s.t_min)
            x_0 = predictor_corrector(
                denoise, x, levels, corrector_steps=s.corrector_steps, snr=s.snr, generator=generator
            )
        return x_0 if self.levels is None else to_uint8(x_0, self.levels)

    @property
    def likelihood_estimator(self) -> str:
        """The probability flow, how it is solved, and how integers become a point."""
        solver = self._solver(self.sampling.likelihood_steps)
        cost = f"{solver.evaluations} evaluations" if solver.evaluations else f"tolerance {solver.rtol:g}"
        trace = "exact divergence" if self._exact else "Hutchinson's divergence"
        point = "" if self.levels is None else ", uniform dequantisation, 1 draw"
        return f"probability-flow ODE, {solver.method}, {cost}, {trace}{point}"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of the data, for integers with one draw of noise and the volume of their bins: (B,), nats.

        Of Hutchinson's estimate, the mean over the generator is that log-density.
        """
        log_bin = 0.0 if self.levels is None else math.log(2.0 / (self.levels - 1))
        x_0 = self._points(x, generator)
        return self.log_density(x_0, generator=generator) + self.spec.num_dims * log_bin

    def log_density(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of what the probability flow makes of noise at `likelihood_t_min`: (B,), nats.

        Args:
            x: (B, ...) float, on the scale of the model, [-1, 1] for images.
            generator: of Hutchinson's signs.
        """
        first, last = self._place(self.sampling.likelihood_t_min), self._place(1.0)
        v, gain = solve_with_log_density(
            self._flow_within(first.phi, last.phi),
            x / first.norm,
            start=first.phi,
            end=last.phi,
            solver=self._solver(self.sampling.likelihood_steps),
            divergence="exact" if self._exact else "hutchinson",
            generator=generator,
        )
        std = self.sde.prior_std / last.norm
        log_prior = -0.5 * ((v / std).square() + math.log(2.0 * math.pi * std**2)).flatten(1).sum(1)
        return log_prior - gain - self.spec.num_dims * math.log(first.norm)

    def _along_flow(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Data at the end of the probability flow from x_1 (B, ...), denoised: the shape of `x`."""
        first, last = self._place(1.0), self._place(self.sampling.t_min)
        solver, s = self._solver(self.sampling.num_steps), self.sampling.guidance
        flow = self._flow_within(first.phi, last.phi, told=told, guidance=s)
        v = solve(flow, x / first.norm, start=first.phi, end=last.phi, solver=solver)
        t = torch.full((len(x),), self.sampling.t_min, device=x.device)
        return self.denoise(last.norm * v, t, told, guidance=s)

    def _flow_within(self, *ends: float, told: Tensor | None = None, guidance: float = 1.0) -> Field:
        """The flow dv / dphi between two angles; a solver that looks past an end, where no noise may be, sees it."""
        low, high = min(ends), max(ends)
        return lambda phi, v: self._flow(phi.clamp(low, high), v, told, guidance)

    def _flow(self, phi: Tensor, v: Tensor, told: Tensor | None = None, guidance: float = 1.0) -> Tensor:
        """Velocity dv / dphi, at one angle for all: the shape of `v`."""
        raw = self._raw(v, (self.config.data_std * phi.tan()).log().expand(len(v)), told, guidance)
        return -raw if self.config.output == "velocity" else (raw - phi.sin() * v) / phi.cos()

    def _seen(
        self, x: Tensor, t: Tensor, told: Tensor | None = None, guidance: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """v, sin(phi), cos(phi) and the output of the network: the shape of `x` first and last, (B, 1, ...) between."""
        t = t.to(x.dtype)
        signal, sigma = self.config.data_std * self.sde.alpha(t), self.sde.sigma(t)
        norm = torch.hypot(sigma, signal)
        v = x / over(norm, x)
        raw = self._raw(v, self.sde.ratio(t).log(), told, guidance)
        return v, over(sigma / norm, x), over(signal / norm, x), raw

    def _raw(self, v: Tensor, log_ratio: Tensor, told: Tensor | None, guidance: float) -> Tensor:
        """Output of the network for inputs of unit variance: the shape of `v`."""
        return self.output(self.net, v, NOISE_SCALE * log_ratio, told, guidance=guidance)

    def _place(self, t: float) -> _Place:
        at, S = torch.tensor(t, dtype=torch.float64), self.config.data_std
        alpha, sigma = float(self.sde.alpha(at)), float(self.sde.sigma(at))
        return _Place(phi=math.atan2(sigma, alpha * S), norm=math.hypot(sigma, alpha * S))

    def _log_ratios(self, t_min: float) -> tuple[float, float]:
        """Logarithms of r at `t_min` and at 1."""
        first, last = self.sde.ratio(torch.tensor([t_min, 1.0], dtype=torch.float64)).log().tolist()
        return first, last

    def _solver(self, num_steps: int) -> Solver:
        s = self.sampling
        return Solver(method=s.solver, num_steps=num_steps, rtol=s.solver_tolerance, atol=s.solver_tolerance)

    @property
    def _exact(self) -> bool:
        return self.spec.num_dims <= self.sampling.exact_divergence_dims

    def _points(self, x: Tensor, generator: Generator | None, *, dequantised: bool = True) -> Tensor:
        """Integers in [-1, 1], or with noise over their bins, of width 2 / (levels - 1) around these places."""
        if self.levels is None or not dequantised:
            return x if self.levels is None else to_signed(x, self.levels)
        return dequantise_signed(x, self.levels, generator=generator)


class _Place(NamedTuple):
    """Where a time lies on the flow: its angle, and v = x / norm."""

    phi: float
    norm: float


def _sde(config: ScoreSDE.Config) -> DiffusionSDE:
    if config.sde == "ve":
        return VarianceExploding(sigma_min=config.sigma_min, sigma_max=config.sigma_max)
    kind = VariancePreserving if config.sde == "vp" else SubVariancePreserving
    return kind(beta_min=config.beta_min, beta_max=config.beta_max)
