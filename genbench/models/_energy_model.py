"""What energy-based models share that are trained at temperature one: the law, its samplers, and its log-likelihood.

    p(x) = exp(-E(x)) / Z,    E(x) = f(x) + |x - m|^2 / (2 s^2),    Z = integral of exp(-E)

f is a network that tilts a Gaussian base (Xie, Lu, Zhu, Wu 2016, arXiv:1602.03264): exp(-f) alone need have
no integral. Its mean m and, `base_scale` times theirs, its standard deviation s are those of the first training batch.
A paper's file adds how f is learned.

`Sampling.sampler` chooses the chains, which start from the base. `annealed` follows N(x; m, s^2 I) exp(-beta f) from
beta = 0 to 1 and tunes its step on the way, so that it reaches modes far apart, if not with their exact shares (see
`samplers.annealed_importance`); `mala`, `hmc` and `langevin` stand at beta = 1 from the start, with the step given.
`draw` returns the share of proposals accepted with the samples.

`Sampling.normaliser` says where log Z comes from: `ais`, annealed importance sampling along the same path, or
`quadrature`, a grid, for vectors of at most two dimensions. The estimate of annealed importance sampling is below log Z
in the mean, so that log-likelihoods are above the truth in the mean: they are estimates and no bounds, optimistic where
chains cannot follow, which the interval of `log_partition` does not show when no chain has met the missing mass. Its
error is common to the examples of one call, and no part of an interval over examples.
Images are uniformly noised integers in [-1, 1], vectors are as they are; training may add Gaussian noise to both. The
density is then that of noised data, and the log-likelihood of data without noise is what it gives them, less than
their due.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol, cast

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import EnergyBased, GenerativeModel, IterativeSampler, LikelihoodEstimate, Phase, Player
from genbench.models._energy_network import NetworkSettings, conv_or_mlp
from genbench.prob.dequantization import dequantise_signed
from genbench.prob.gaussian import LOG_SQRT_TAU
from genbench.prob.grid_integral import log_integral
from genbench.prob.log_mean import LogMean, log_mean_exp
from genbench.prob.pixels import to_uint8
from genbench.samplers.annealed_importance import annealed, annealed_importance, first_step_of, path
from genbench.samplers.hmc import hmc
from genbench.samplers.langevin import langevin
from genbench.samplers.mala import mala
from genbench.samplers.metropolis import Chains

CLIP_NORM = 1.0
"""Of gradients."""
SMALLEST_STD = 1e-3
"""Of the base, where the first batch has no spread."""
GRID_WIDTH = 8.0
"""Half a side of the grid of `quadrature`, in standard deviations of the base."""
GRID_POINTS = 512
"""Along each side: of a base of 1.5, features as narrow as 0.05 are integrated to a part in a million."""


class Settings(NetworkSettings, Protocol):
    """What a paper's `Config` must hold."""

    @property
    def base_scale(self) -> float:
        """Standard deviation of the base over that of data."""

    @property
    def data_noise(self) -> float:
        """Standard deviation of the noise added to data."""

    @property
    def lr(self) -> float:
        """Learning rate."""

    @property
    def warmup_steps(self) -> int:
        """Over which it rises."""

    @property
    def final_lr_share(self) -> float:
        """Of it, at the end."""

    @property
    def ema_decay(self) -> float:
        """Of the weights."""

    @property
    def batch_size(self) -> int:
        """Of training."""


class SamplingSettings(Protocol):
    """What a paper's `Sampling` must hold."""

    @property
    def sampler(self) -> Literal["annealed", "mala", "hmc", "langevin"]:
        """Which chains."""

    @property
    def num_steps(self) -> int:
        """Of each chain."""

    @property
    def hold(self) -> int:
        """Steps of `annealed` at beta = 1."""

    @property
    def step_size(self) -> float:
        """Of the others, h."""

    @property
    def leapfrog_steps(self) -> int:
        """Of `hmc`."""

    @property
    def denoised(self) -> bool:
        """Whether the noise of training is taken off samples."""

    @property
    def normaliser(self) -> Literal["ais", "quadrature", "learned"]:
        """Where log Z comes from; `learned` where the paper learns it."""

    @property
    def ais_steps(self) -> int:
        """Steps of the path."""

    @property
    def ais_chains(self) -> int:
        """Weights."""


class EnergyModel(GenerativeModel, EnergyBased, IterativeSampler, LikelihoodEstimate):
    """A tilted Gaussian; a subclass has the loss and sets `sampling`.

    Args:
        spec: of images of integers, or of vectors of floats.
        config: settings of the model.

    Raises:
        SettingError: the data are neither.
    """

    takes = ("image", "vector")
    base_mean: Tensor
    base_std: Tensor

    def __init__(self, spec: DataSpec, config: Settings) -> None:
        super().__init__(spec)
        self.config, self.levels = config, spec.levels
        owner = type(self).__module__.rpartition(".")[2]
        self.net = conv_or_mlp(spec, config, owner=owner, bias=False)
        self.register_buffer("base_mean", torch.zeros(spec.shape))
        self.register_buffer("base_std", torch.ones(()))

    @property
    def network(self) -> nn.Module:
        """The network of f."""
        return self.net

    @property
    def how(self) -> SamplingSettings:
        """How samples are drawn: `sampling`, of whichever class it is."""
        return cast("SamplingSettings", self.sampling)

    def player(self, name: str, *modules: nn.Module) -> Player:
        """Who trains the modules."""
        return Player(
            name=name,
            modules=modules,
            lr=self.config.lr,
            clip_norm=CLIP_NORM,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )

    def phases(self) -> tuple[Phase, ...]:
        """One player."""
        players = (self.player("energy", self.net),)
        return (Phase(name="train", share=1.0, players=players, batch_size=self.config.batch_size),)

    @torch.no_grad()
    def fit_base(self, batch: Batch) -> None:
        """Fit the base to the first training batch."""
        points = self.as_points(batch.x, None)
        self.base_mean.copy_(points.mean(0))
        std = (points - self.base_mean).square().mean().sqrt().clamp(min=SMALLEST_STD)
        self.base_std.copy_(self.config.base_scale * std)

    def tilt(self, x: Tensor) -> Tensor:
        """The tilt f of points (B, ...): (B,)."""
        outputs: Tensor = self.net(x)
        return outputs.squeeze(1)

    def base_energy(self, x: Tensor) -> Tensor:
        """|x - m|^2 / (2 s^2) of points (B, ...): (B,)."""
        return 0.5 * ((x - self.base_mean) / self.base_std).square().flatten(1).sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """E of points on the scale of the model, [-1, 1] for images: (B,)."""
        return self.base_energy(x) + self.tilt(x)

    @property
    def base_log_partition(self) -> Tensor:
        """Logarithm of the integral of exp(-base_energy): ()."""
        return self.spec.num_dims * (self.base_std.log() + LOG_SQRT_TAU)

    def base_draws(self, num: int, generator: Generator | None) -> Tensor:
        """Points (num, ...) of the base; None draws from the global stream."""
        shape, device = (num, *self.spec.shape), self.base_mean.device
        return self.base_mean + self.base_std * torch.randn(shape, generator=generator, device=device)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw by chains from the base: (N, C, H, W), uint8, or vectors (N, D)."""
        x = self.draw(num_samples, generator=generator).x
        if self.how.denoised and self.config.data_noise > 0.0:
            x = self.without_noise(x)
        return x if self.levels is None else to_uint8(x, self.levels)

    def draw(self, num_samples: int, *, generator: Generator) -> Chains:
        """Ends of the chains on the scale of the model, and the share of proposals accepted.

        Of `annealed` that share is the mean over all chains; `langevin` accepts all.
        """
        s, x = self.how, self.base_draws(num_samples, generator)
        if s.sampler == "mala":
            return mala(self.energy, x, num_steps=s.num_steps, step_size=s.step_size, generator=generator)
        if s.sampler == "hmc":
            return hmc(
                self.energy,
                x,
                num_steps=s.num_steps,
                step_size=math.sqrt(2.0 * s.step_size),
                leapfrog_steps=s.leapfrog_steps,
                generator=generator,
            )
        if s.sampler == "langevin":
            noise = math.sqrt(2.0 * s.step_size)
            x = langevin(
                self.energy,
                x,
                num_steps=s.num_steps,
                step_size=s.step_size,
                noise_scale=noise,
                generator=generator,
            )
            return Chains(x, torch.ones(num_samples, device=x.device))
        betas = path(s.num_steps, hold=s.hold)
        found = annealed(
            self.base_energy, self.energy, x, betas=betas, first_step=self._first_step, generator=generator
        )
        return Chains(found.x, found.acceptance.mean().expand(num_samples))

    def without_noise(self, x: Tensor) -> Tensor:
        """The mean of what points with the noise of training were, x - data_noise^2 grad E(x): the shape of `x`.

        (Miyasawa 1961; Raphan and Simoncelli 2011.)
        """
        with torch.inference_mode(mode=False), torch.enable_grad():
            x = x.clone().detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(x).sum(), x)
        return x.detach() - self.config.data_noise**2 * slope

    @property
    def likelihood_estimator(self) -> str:
        """Where log Z comes from and which way it errs, and how integers are made points."""
        point = "" if self.levels is None else ", uniform dequantisation, 1 draw"
        s = self.how
        if s.normaliser == "learned":
            return f"log Z learned{point}"
        if s.normaliser == "quadrature":
            return f"log Z by quadrature, {GRID_POINTS} x {GRID_POINTS} points"
        return f"log Z by annealed importance sampling, {s.ais_steps} steps, {s.ais_chains} chains, optimistic{point}"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """-E - log Z of vectors, or of integers with one draw of noise and the volume of their bins: (B,), nats.

        log Z is estimated anew at each call, and is the same for all examples of it.
        """
        y = self.as_points(x, generator)
        log_bin = 0.0 if self.levels is None else math.log(2.0 / (self.levels - 1))
        log_z = self.log_partition(generator=generator).value
        return -self.energy(y) - log_z.to(y.dtype) + self.spec.num_dims * log_bin

    @torch.no_grad()
    def log_partition(self, *, generator: Generator) -> LogMean:
        """Give log Z with its interval: `estimated_log_partition`, where the paper does not learn it."""
        return self.estimated_log_partition(generator)

    def estimated_log_partition(self, generator: Generator) -> LogMean:
        """Estimate log Z with its interval; of `quadrature` the interval is empty.

        Raises:
            SettingError: `quadrature` in more than two dimensions.
        """
        if self.how.normaliser == "quadrature":
            value = self._integrated()
            return LogMean(value, value, value, torch.ones_like(value))
        betas = path(self.how.ais_steps)
        pilot = annealed(
            self.base_energy,
            self.energy,
            self.base_draws(self.how.ais_chains, generator),
            betas=betas,
            first_step=self._first_step,
            generator=generator,
        )
        found = annealed_importance(
            self.base_energy,
            self.energy,
            self.base_draws(self.how.ais_chains, generator),
            betas=betas,
            step_sizes=pilot.step_sizes,
            generator=generator,
        )
        return log_mean_exp(found.log_weights).shifted(self.base_log_partition)

    def as_points(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Vectors as they are; integers with noise over their bins, 2 / (levels - 1) wide around their places."""
        if self.levels is None:
            return x.float()
        return dequantise_signed(x, self.levels, generator=generator)

    def for_training(self, batch: Batch) -> Tensor:
        """Points of a batch with the noise of training, from the global stream."""
        points = self.as_points(batch.x, None)
        if self.config.data_noise > 0.0:
            points = points + self.config.data_noise * torch.randn_like(points)
        return points

    @property
    def _first_step(self) -> Tensor:
        return first_step_of(self.base_std, self.spec.num_dims)

    def _integrated(self) -> Tensor:
        if self.spec.kind != "vector" or self.spec.num_dims > 2:
            raise SettingError(
                f"quadrature is for vectors of at most 2 dimensions, found {self.spec.kind} data of shape "
                f"{self.spec.shape}",
                hint="normaliser=ais is for any data",
            )
        half_width = GRID_WIDTH * self.base_std
        return log_integral(lambda x: -self.energy(x), middle=self.base_mean, half_width=half_width, num=GRID_POINTS)
