"""Continuous flow: a differential equation carries noise to data, trained by maximum likelihood through its solver.

"FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models", Will Grathwohl, Ricky T. Q. Chen,
Jesse Bettencourt, Ilya Sutskever, David Duvenaud, 2018 (ICLR 2019), arXiv:1810.01367.

Idea: a network gives the velocity of points, and any smooth network will do: its equation can always be solved
backwards, and log-densities change along a path by the trace of its Jacobian. Hutchinson's estimate finds that trace by
one product of a vector and the Jacobian, in place of as many as there are dimensions.

Legend: `x` data at t = 1, `z` noise N(0, I) at t = 0, `v(x, t)` velocity, `eps` random signs, one for each whole solve,
`D` dimensions:

    dx/dt = v(x, t),    log p(x) = log N(z; 0, I) - int_0^1 tr(dv/dx) dt,    tr(J) = E eps^T J eps    (Sec. 3.1)

The exact trace, which is that of continuous normalising flows (Chen et al. 2018, arXiv:1806.07366), takes its place in
low dimension. `kinetic` and `jacobian` add int |v|^2 dt / D and int |eps^T J|^2 dt / D to the loss: paths become
straight and few steps solve them (Finlay et al. 2020, arXiv:2002.02798, RNODE). A neural ODE is the setting without
either and with exact traces: `exact_training_dims` and `exact_divergence_dims` at least D.

Images run in the multi-scale architecture of RealNVP with several equations at each scale (Sec. 4). Training solves the
equation by `train_solver`: even steps are differentiated themselves, `dopri5` by the adjoint equation. The loss reports
how often the network was evaluated on the way.

**Departures**
- All equations run from t = 0 to 1, where the authors learn the end time. Elsewhere than in `paper`, a scale
  begins with its squeeze, so that no equation runs at full resolution.
- Velocities start at zero, so that the flow starts as the identity; `eps` are signs everywhere.
- Vectors have dense layers gated by the time (the authors' `concatsquash`) and tanh, images convolutions with the time
  as a channel.
- `smoke`, `small` and `vector` train by few even steps with both regularisers, as RNODE does, use narrow networks,
  higher learning rates and averaged weights. `paper` is the authors' command for MNIST.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import IterativeSampler, Loss, register_model
from genbench.core.ranges import Count, Fraction, Margin, NonNegative, Positive, Several, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.bijection import Bijection, Chain, Flatten
from genbench.nn.multiscale_flow import MultiScale, possible_levels
from genbench.prob.dequantization import bin_centres
from genbench.samplers.ode import Divergence, Solver, solve, solve_for_training, solve_with_log_density

Method = Literal["euler", "midpoint", "heun2", "rk4", "dopri5"]

HALVED = 2.0
"""How much larger weights start, as gates halve what passes a layer of vectors, and softplus that of images."""


class GatedLinear(nn.Module):
    """(W x + b) sigmoid(a t + c) + e t."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.gate, self.shift = nn.Linear(1, out_dim), nn.Linear(1, out_dim, bias=False)
        nn.init.normal_(self.linear.weight, std=HALVED / math.sqrt(in_dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, in) at a time () to (B, out)."""
        time = t.view(1, 1)
        y: Tensor = self.linear(x) * self.gate(time).sigmoid() + self.shift(time)
        return y


class TimedConv(nn.Module):
    """A 3x3 convolution that sees the time as one more channel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels + 1, out_channels, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=HALVED / math.sqrt(9.0 * (in_channels + 1)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, in, H, W) at a time () to (B, out, H, W)."""
        B, _, H, W = x.shape
        y: Tensor = self.conv(torch.cat([x, t.expand(B, 1, H, W)], dim=1))
        return y


class Dynamics(nn.Module):
    """v(x, t): layers that know the time, with softplus between them, for vectors tanh; 0 at its start.

    Args:
        num_channels: of x and v.
        width: of the layers between.
        num_layers: at least 2.
        images: whether x is (B, C, H, W), else (B, C).
    """

    def __init__(self, num_channels: int, *, width: int, num_layers: int, images: bool) -> None:
        super().__init__()
        kind = TimedConv if images else GatedLinear
        widths = [num_channels, *[width] * (num_layers - 1), num_channels]
        layers = [kind(before, after) for before, after in itertools.pairwise(widths)]
        self.layers = cast("Sequence[nn.Module]", nn.ModuleList(layers))
        self.activation = F.softplus if images else torch.tanh
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The shape of `x`, at a time ()."""
        for number, layer in enumerate(self.layers):
            x = layer(self.activation(x) if number else x, t)
        return x


class Evaluations(nn.Module):
    """Every evaluation of a velocity, whichever equation's, so that they can be counted in one place."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor, t: Tensor, dynamics: Dynamics) -> Tensor:
        """v(x, t) by the dynamics given."""
        self.count += 1
        v: Tensor = dynamics(x, t)
        return v


@dataclasses.dataclass
class Course:
    """How the equations of a model are solved at present, and what the paths of a training step have cost."""

    purpose: Literal["points", "density", "training"]
    solver: Solver
    divergence: Divergence
    generator: Generator | None = None
    kinetic: list[Tensor] = dataclasses.field(default_factory=list)
    """Of each equation solved for training: (B,)."""
    jacobian: list[Tensor] = dataclasses.field(default_factory=list)


class Courses:
    """The present course, which all equations of a model share."""

    def __init__(self) -> None:
        self.now = Course("density", Solver(), "exact")

    @contextlib.contextmanager
    def take(self, course: Course) -> Iterator[Course]:
        """Solve so within the block, and as before after it."""
        before, self.now = self.now, course
        try:
            yield course
        finally:
            self.now = before


class Equation(Bijection):
    """The flow of one velocity, from data at t = 1 to noise at t = 0.

    Args:
        dynamics: the velocity.
        evaluations: counts, shared by the model.
        courses: how to solve, shared by the model.
    """

    def __init__(self, dynamics: Dynamics, evaluations: Evaluations, courses: Courses) -> None:
        super().__init__()
        self.dynamics, self.evaluations, self.courses = dynamics, evaluations, courses

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points at t = 0, and log-determinants (B,), which are 0 where the course asks for points alone."""
        course = self.courses.now
        if course.purpose == "points":
            return solve(self._field, x, start=1.0, end=0.0, solver=course.solver), x.new_zeros(())
        if course.purpose == "density":
            z, gain = solve_with_log_density(
                self._field,
                x,
                start=1.0,
                end=0.0,
                solver=course.solver,
                divergence=course.divergence,
                generator=course.generator,
            )
            return z, -gain
        carried = solve_for_training(
            self._field,
            x,
            start=1.0,
            end=0.0,
            solver=course.solver,
            divergence=course.divergence,
            parameters=self.dynamics.parameters(),
            generator=course.generator,
        )
        course.kinetic.append(carried.kinetic)
        course.jacobian.append(carried.jacobian)
        return carried.end, -carried.gain

    def inverse(self, y: Tensor) -> Tensor:
        """Points at t = 1."""
        return solve(self._field, y, start=0.0, end=1.0, solver=self.courses.now.solver)

    def _field(self, t: Tensor, x: Tensor) -> Tensor:
        v: Tensor = self.evaluations(x, t.to(x.dtype), self.dynamics)
        return v.to(x)  # the network may run in half precision


@register_model("ffjord")
class FFJORD(ExactFlow, IterativeSampler):
    """Free-form continuous flow; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 64
        """Features of the velocities."""
        num_layers: Several = 3
        """Layers of each velocity."""
        num_equations: Count = 1
        """At each scale of images, after its squeeze, or of the whole flow of vectors."""
        num_fine_equations: Whole = 0
        """Before every squeeze of images, and at the end."""
        num_scales: Count = 2
        """Of images; fewer where a side becomes odd."""
        alpha: Margin | None = 0.05
        """Margin of the logit of pixels, 1e-6 for MNIST in the paper; None has them on [-1, 1]."""
        train_solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "rk4"
        train_steps: Count = 4
        """Even steps; of no effect on `dopri5`."""
        train_tolerance: Positive = 1e-5
        """Of `dopri5`, relative and absolute."""
        exact_training_dims: Whole = 2
        """Data of at most so many dimensions are trained with exact traces, others by Hutchinson's estimate."""
        kinetic: NonNegative = 0.01
        """Weight of the integral of |v|^2 for each dimension."""
        jacobian: NonNegative = 0.01
        """Weight of the integral of the squared norm of the Jacobian for each dimension."""
        lr: Positive = 3.0e-3
        warmup_steps: Whole = 20
        final_lr_share: Share = 0.05
        clip_norm: Positive | None = 5.0
        ema_decay: Fraction | None = 0.99
        batch_size: Count = 64

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How the equations of a trained model are solved."""

        solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "dopri5"
        """From noise to data. The first four take `num_steps` even steps, the last chooses its own."""
        num_steps: Count = 20
        tolerance: Positive = 1e-3
        """Of `dopri5`, relative and absolute."""
        likelihood_solver: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "dopri5"
        """From data to noise, with the density."""
        likelihood_steps: Count = 20
        likelihood_tolerance: Positive = 1e-4
        exact_divergence_dims: Whole = 8
        """Data of at most so many dimensions have exact traces in their likelihood, others Hutchinson's estimate."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=32, train_steps=2, ema_decay=0.98),
        "small": Config(width=48, train_steps=3),
        "vector": Config(num_layers=4, train_steps=5, batch_size=256),
        "paper": Config(
            num_layers=4,
            num_equations=2,
            num_fine_equations=2,
            num_scales=3,
            alpha=1.0e-6,
            train_solver="dopri5",
            kinetic=0.0,
            jacobian=0.0,
            lr=1.0e-3,
            warmup_steps=1000,
            final_lr_share=1.0,
            clip_norm=None,
            ema_decay=None,
            batch_size=200,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(),
        "small": Sampling(),
        "vector": Sampling(tolerance=1e-5, likelihood_tolerance=1e-5),
        "paper": Sampling(tolerance=1e-5, likelihood_tolerance=1e-5),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.evaluations, self.courses = Evaluations(), Courses()
        if spec.kind == "image":
            C, H, W = spec.shape
            num_scales = possible_levels(H, W, wanted=config.num_scales)
            if not num_scales:
                raise SettingError(f"`ffjord` halves both sides of images, which must be even, found {H}x{W}")
            level, fine = (partial(self._equations, num) for num in (config.num_equations, config.num_fine_equations))
            make_fine = fine if config.num_fine_equations else None
            self.flow = MultiScale((C, H, W), num_scales, level, make_fine=make_fine)
        else:
            self.flow = Chain(Flatten(spec.shape), self._equations(config.num_equations, spec.num_dims))

    @property
    def network(self) -> nn.Module:
        """Where every evaluation of a velocity passes."""
        return self.evaluations

    @property
    def likelihood_estimator(self) -> str:
        """How the equations are solved, the traces found, and integers made points."""
        solver = self._solver("likelihood")
        cost = f"{solver.evaluations} evaluations" if solver.evaluations else f"tolerance {solver.rtol:g}"
        trace = "exact trace" if self._divergence("likelihood") == "exact" else "Hutchinson's trace"
        point = "" if self.levels is None else f", {self.usual_estimator}"
        return f"flow ODE, {solver.method}, {cost}, {trace}{point}"

    def prepare(self, batch: Batch) -> None:
        """Nothing starts from data."""

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative log-likelihood, with the regularisers: bits per dimension of images, nats of vectors."""
        before = self.evaluations.count
        course = Course("training", self._solver("training"), self._divergence("training"))
        with self.courses.take(course):
            fit = self.as_loss(self.density_of(self.as_points(batch.x, None)))
        D = self.spec.num_dims
        kinetic, jacobian = (torch.stack(cost).sum(0).mean() / D for cost in (course.kinetic, course.jacobian))
        total = fit.total + self.config.kinetic * kinetic + self.config.jacobian * jacobian
        costs = {"kinetic": kinetic.detach(), "jacobian": jacobian.detach()}
        return Loss(total, {**fit.parts, **costs, "evaluations": torch.tensor(float(self.evaluations.count - before))})

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of vectors; of integers with one draw of noise, less D log(levels): (B,), nats.

        Of Hutchinson's estimate, the mean over the generator is that log-density.
        """
        course = Course("density", self._solver("likelihood"), self._divergence("likelihood"), generator)
        with self.courses.take(course):
            return self.density_of(self.as_points(x, generator))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents of vectors, or of the middles of the bins of integers: (B, D)."""
        y = x.float() if self.levels is None else bin_centres(x, self.levels)
        with self.courses.take(Course("points", self._solver("likelihood"), "exact")):
            return self.transform(y)[0]

    def invert(self, z: Tensor) -> Tensor:
        """Points (B, *shape) whose latents are `z`, by the solver of samples."""
        with self.courses.take(Course("points", self._solver("samples"), "exact")):
            return self.from_line(self.flow.inverse(z))

    def _equations(self, num_equations: int, num_channels: int) -> Chain:
        c, images = self.config, self.spec.kind == "image"
        velocities = [
            Dynamics(num_channels, width=c.width, num_layers=c.num_layers, images=images) for _ in range(num_equations)
        ]
        return Chain(*[Equation(velocity, self.evaluations, self.courses) for velocity in velocities])

    def _solver(self, purpose: Literal["training", "likelihood", "samples"]) -> Solver:
        c, s = self.config, self.sampling
        if purpose == "training":
            return _solver(c.train_solver, c.train_steps, c.train_tolerance)
        if purpose == "likelihood":
            return _solver(s.likelihood_solver, s.likelihood_steps, s.likelihood_tolerance)
        return _solver(s.solver, s.num_steps, s.tolerance)

    def _divergence(self, purpose: Literal["training", "likelihood"]) -> Divergence:
        training = purpose == "training"
        most = self.config.exact_training_dims if training else self.sampling.exact_divergence_dims
        return "exact" if self.spec.num_dims <= most else "hutchinson"


def _solver(method: Method, num_steps: int, tolerance: float) -> Solver:
    return Solver(method=method, num_steps=num_steps, rtol=tolerance, atol=tolerance)
