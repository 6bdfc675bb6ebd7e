"""What models of a velocity share: the network, sampling along the flow, and the density that it carries.

    dx / dt = v(x, t),    x0 ~ N(0, I) at t = 0,    data x1 at t = 1

A paper's file adds its path, its coupling of noise and data, and its loss. Images of integers are scaled to [-1, 1] and
have a U-Net; vectors of floats are taken as they are, should have variances near 1, and have a residual MLP.
A model that can be told conditions makes a `conditioner`, and follows them by `guidance`; likelihoods are without any.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, Protocol, cast

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, IterativeSampler, Phase, Player
from genbench.models._conditional_sampling import ConditionalSampling
from genbench.models._data_kinds import takes_images
from genbench.models._noised_data import NetworkSettings, unet_or_mlp
from genbench.nn.time_mlp import TimeMLP
from genbench.nn.unet import UNet
from genbench.prob.dequantization import dequantise_signed
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.ode import Field, Solver, solve, solve_with_log_density

CLIP_NORM = 1.0
"""Of gradients."""


class Settings(NetworkSettings, Protocol):
    """What a paper's `Config` must hold; the meaning of each is said there."""

    @property
    def time_scale(self) -> float:
        """Factor of times before their embedding."""

    @property
    def dequantised(self) -> bool:
        """Train on uniformly noised integers."""

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
    def solver(self) -> Literal["euler", "midpoint", "heun2", "rk4", "dopri5"]:
        """Of the flow from noise to data."""

    @property
    def num_steps(self) -> int:
        """Even steps; of no effect on `dopri5`."""

    @property
    def tolerance(self) -> float:
        """Of `dopri5`, relative and absolute."""

    @property
    def likelihood_solver(self) -> Literal["euler", "midpoint", "heun2", "rk4", "dopri5"]:
        """Of the flow from data to noise with its density."""

    @property
    def likelihood_steps(self) -> int:
        """Even steps of it."""

    @property
    def likelihood_tolerance(self) -> float:
        """As `tolerance`."""

    @property
    def exact_divergence_dims(self) -> int:
        """Images of at most so many dimensions have the exact divergence."""


class VelocityModel(ConditionalSampling, GenerativeModel, IterativeSampler):
    """A velocity field between noise and data; a subclass has the loss and sets `sampling` and `network`.

    `log_likelihood` is the density at t = 1 of the flow that starts as N(0, I), of images at uniformly noised integers.

    Args:
        spec: of images of integers, or of vectors of floats.
        config: settings of the model.

    Raises:
        SettingError: the data are neither.
    """

    takes = ("image", "vector")
    last_time = 1.0
    """Where samples are taken and likelihoods begin."""

    def __init__(self, spec: DataSpec, config: Settings) -> None:
        super().__init__(spec)
        takes_images(spec, owner=type(self).__module__.rpartition(".")[2])
        self.config, self.levels = config, spec.levels
        self.conditioner = None

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Data with noise (B, ...) and scaled times (B,) to velocities (B, ...)."""

    @property
    def how(self) -> SamplingSettings:
        """How samples are drawn: `sampling`, of whichever class it is."""
        return cast("SamplingSettings", self.sampling)

    @property
    def guidance(self) -> float:
        """s, by which samples follow what they are told."""
        return 1.0

    def make_network(self) -> UNet | TimeMLP:
        """A new network for the data, 0 at its start; `embedding_dim` is the length of its time embedding."""
        name = type(self).__module__.rpartition(".")[2]
        return unet_or_mlp(self.spec, self.config, owner=name)

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
        players = (self.player("network", *self.learners(self.network)),)
        return (Phase(name="train", share=1.0, players=players, batch_size=self.config.batch_size),)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v(x, t) without a condition: the shape of `x`.

        Args:
            x: (B, ...) float.
            t: (B,) in [0, 1].
        """
        return self.output(self.network, x, self.config.time_scale * t, None)

    def velocity_given(self, x: Tensor, t: Tensor, told: Tensor | None, *, guidance: float = 1.0) -> Tensor:
        """v(x, t) given vectors of conditions (B, dim), or none, guided by s: the shape of `x`."""
        if told is None:
            return self.velocity(x, t)
        return self.output(self.network, x, self.config.time_scale * t, told, guidance=guidance)

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Follow the flow from noise to data by the solver of `sampling`: (N, *shape), uint8 for images."""
        x0 = torch.randn((num_samples, *self.spec.shape), generator=generator, device=generator.device)
        return self.as_data(self.flow(x0, self.told(condition)))

    def flow(self, x0: Tensor, told: Tensor | None = None) -> Tensor:
        """Where the flow takes noise, given vectors of conditions or none, on the scale of the model: as `x0`."""
        s = self.how
        solver = Solver(method=s.solver, num_steps=s.num_steps, rtol=s.tolerance, atol=s.tolerance)
        return solve(self._field(told), x0, start=0.0, end=self.last_time, solver=solver)

    @property
    def likelihood_estimator(self) -> str:
        """How the flow is solved, its divergence found, and integers made points."""
        solver = self._likelihood_solver
        cost = f"{solver.evaluations} evaluations" if solver.evaluations else f"tolerance {solver.rtol:g}"
        trace = "exact divergence" if self._exact else "Hutchinson's divergence"
        point = "" if self.levels is None else ", uniform dequantisation, 1 draw"
        return f"flow ODE, {solver.method}, {cost}, {trace}{point}"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of vectors, or of integers with one draw of noise and the volume of their bins: (B,), nats.

        Of Hutchinson's estimate, the mean over the generator is that log-density.
        """
        y = self.as_points(x, generator)
        log_bin = 0.0 if self.levels is None else math.log(2.0 / (self.levels - 1))
        return self.log_density(y, generator=generator) + self.spec.num_dims * log_bin

    def log_density(self, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Log-density of the end of the flow from N(0, I): (B,), nats.

        Args:
            y: (B, ...) float, on the scale of the model, [-1, 1] for images.
            generator: of Hutchinson's signs.
        """
        x0, gain = solve_with_log_density(
            self._field(None),
            y,
            start=self.last_time,
            end=0.0,
            solver=self._likelihood_solver,
            divergence="exact" if self._exact else "hutchinson",
            generator=generator,
        )
        return -0.5 * (x0.square() + math.log(2.0 * math.pi)).flatten(1).sum(1) - gain

    def for_training(self, batch: Batch) -> Tensor:
        """x1 of a batch, on the scale of the model; draws from the global stream where integers are noised."""
        if self.config.dequantised or self.levels is None:
            return self.as_points(batch.x, None)
        return to_signed(batch.x, self.levels)

    def as_points(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Vectors as they are; integers with noise over their bins, 2 / (levels - 1) wide around their places."""
        if self.levels is None:
            return x.float()
        return dequantise_signed(x, self.levels, generator=generator)

    def as_data(self, x1: Tensor) -> Tensor:
        """Points on the scale of the model as the data are: vectors, or uint8."""
        return x1 if self.levels is None else to_uint8(x1, self.levels)

    def _field(self, told: Tensor | None) -> Field:
        """The velocity as a solver asks for it."""

        def field(t: Tensor, x: Tensor) -> Tensor:
            within = t.clamp(0.0, self.last_time)  # an adaptive solver steps beyond the end, where nothing was learned
            return self.velocity_given(x, within.expand(len(x)), told, guidance=self.guidance)

        return field

    @property
    def _likelihood_solver(self) -> Solver:
        s = self.how
        tolerance = s.likelihood_tolerance
        return Solver(method=s.likelihood_solver, num_steps=s.likelihood_steps, rtol=tolerance, atol=tolerance)

    @property
    def _exact(self) -> bool:
        return self.spec.kind == "vector" or self.spec.num_dims <= self.how.exact_divergence_dims


def logit_normal_times(num: int, device: torch.device, *, mean: float, std: float) -> Tensor:
    """Times 1 / (1 + exp(-u)) with u ~ N(mean, std^2), from the global stream (Esser et al. 2024, 2403.03206): (B,)."""
    return torch.sigmoid(mean + std * torch.randn(num, device=device))
