"""What flows with an exact density share: data as points, the base law, training, samples, codes and likelihoods.

    log p(x) = log base(z) + log |det dz/dx|,    z = f(x)

A paper's file adds its map `flow`, and its base where that is no Gaussian. Images of integers are dequantised and put
on [-1, 1], or on the line by a logit; vectors of floats are taken as they are.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import ContinuousLatents, DequantisedLikelihood, GenerativeModel, Loss, Phase, Player
from genbench.models._data_kinds import takes_images
from genbench.nn.bijection import Bijection
from genbench.prob.dequantization import (
    bin_centres,
    dequantise,
    from_logits,
    integer_log_likelihood,
    quantise,
    to_logits,
)
from genbench.prob.gaussian import standard_log_prob


class Settings(Protocol):
    """What a paper's `Config` must hold; the meaning of each is said there."""

    @property
    def alpha(self) -> float | None:
        """Margin of the logit of pixels; None has them on [-1, 1]."""

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
    def clip_norm(self) -> float | None:
        """Of gradients."""

    @property
    def ema_decay(self) -> float | None:
        """Of the weights."""

    @property
    def batch_size(self) -> int:
        """Of training."""


class ExactFlow(GenerativeModel, DequantisedLikelihood, ContinuousLatents):
    """A bijection between data and a simple law; a subclass sets `flow`.

    `log_likelihood` of vectors is their exact log-density; of integers, that of one dequantised point, a lower bound.

    Args:
        spec: of images of integers, or of vectors of floats.
        config: settings of the model.

    Raises:
        SettingError: the data are neither.
    """

    takes = ("image", "vector")
    flow: Bijection
    """From points to latents (B, D), whatever the shape of a point."""

    def __init__(self, spec: DataSpec, config: Settings) -> None:
        super().__init__(spec)
        takes_images(spec, owner=type(self).__module__.rpartition(".")[2])
        self.config, self.levels = config, spec.levels

    def phases(self) -> tuple[Phase, ...]:
        """One player: every parameter of the flow."""
        c = self.config
        player = Player(
            name="flow",
            modules=(self,),
            lr=c.lr,
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
        return (Phase(name="flow", share=1.0, players=(player,), batch_size=c.batch_size),)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start what depends on data from the first training batch."""
        self.flow.initialise(self.to_line(self.as_points(batch.x, None))[0])

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative log-likelihood: bits per dimension of images, nats per example of vectors."""
        return self.as_loss(self.density_of(self.as_points(batch.x, None)))

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Inverse of the flow at draws from the base: (N, *shape), uint8 for images."""
        return self.decode(self.draw_base(num_samples, generator))

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-density of vectors; of integers with one draw of noise, less D log(levels): (B,), nats."""
        return self.density_of(self.as_points(x, generator))

    @property
    def likelihood_estimator(self) -> str:
        """Nothing is estimated of vectors; integers are dequantised."""
        return "exact density" if self.levels is None else self.usual_estimator

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents of vectors, or of the middles of the bins of integers: (B, D)."""
        return self.transform(x.float() if self.levels is None else bin_centres(x, self.levels))[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Inverse images (B, *shape): floats, or the bins that hold them, uint8."""
        return self.as_data(self.invert(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` itself, up to rounding: the map is a bijection."""
        return self.decode(self.encode(x))

    def transform(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of points, of [0, 1]^D for images, and the log-determinant of the whole map: (B, D) and (B,)."""
        h, on_line = self.to_line(y)
        z, log_det = self.flow(h)
        return z, log_det + on_line

    def invert(self, z: Tensor) -> Tensor:
        """Inverse of `transform`: (B, *shape)."""
        return self.from_line(self.flow.inverse(z))

    def log_base(self, z: Tensor) -> Tensor:
        """Log-density of latents (B, D) under the base: (B,)."""
        return standard_log_prob(z).sum(1)

    def draw_base(self, num: int, generator: Generator) -> Tensor:
        """Draws from the base: (num, D)."""
        return torch.randn(num, self.spec.num_dims, generator=generator, device=generator.device)

    def density_of(self, y: Tensor) -> Tensor:
        """Log-likelihood of the data whose points are `y`: (B,), nats."""
        z, log_det = self.transform(y)
        log_density = self.log_base(z) + log_det
        if self.levels is None:
            return log_density
        return integer_log_likelihood(log_density, self.spec.num_dims, self.levels)

    def as_loss(self, log_likelihood: Tensor) -> Loss:
        """Bits per dimension of integers, nats of vectors."""
        nats = -log_likelihood.mean()
        if self.levels is None:
            return Loss(nats, {"nll": nats.detach()})
        bits_per_dim = nats / (self.spec.num_dims * math.log(2.0))
        return Loss(bits_per_dim, {"bits_per_dim": bits_per_dim.detach()})

    def as_points(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Vectors as they are; integers with uniform noise, in (0, 1)^D."""
        return x.float() if self.levels is None else dequantise(x, self.levels, generator=generator)

    def as_data(self, y: Tensor) -> Tensor:
        """Points as the data are: vectors, or uint8."""
        return y if self.levels is None else quantise(y, self.levels)

    def to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points where the flow takes them, and the log-determinant: the shape of `y`, and (B,) or ()."""
        if self.levels is None:
            return y, y.new_zeros(())
        if self.config.alpha is None:
            return 2.0 * y - 1.0, y.new_full((), self.spec.num_dims * math.log(2.0))
        return to_logits(y, self.config.alpha)

    def from_line(self, h: Tensor) -> Tensor:
        """Inverse of `to_line`."""
        if self.levels is None:
            return h
        return 0.5 * (h + 1.0) if self.config.alpha is None else from_logits(h, self.config.alpha)
