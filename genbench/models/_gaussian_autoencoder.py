"""What variational autoencoders with one layer of Gaussian codes share: all but the objective that sets them apart.

    q(z|x) = N(mu(x), sigma(x)^2),    p(z) = N(0, I),    p(x|z) a law of every pixel

A paper's file adds its settings and its loss. Symbols: `B` images, `K` draws, `D` codes of an image.
"""

from __future__ import annotations

from typing import Literal, Protocol, cast

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import ContinuousLatents, GenerativeModel, LikelihoodBound, Phase, Player
from genbench.nn import conv_coder
from genbench.prob import latent_bound
from genbench.prob.pixel_likelihood import PixelLaw, pixel_likelihood
from genbench.prob.pixels import to_signed


class Settings(Protocol):
    """What a paper's `Config` must hold; the meaning of each is said there."""

    @property
    def latent_dim(self) -> int:
        """D."""

    @property
    def networks(self) -> Literal["residual", "strided", "dense"]:
        """Kind of both networks."""

    @property
    def width(self) -> int:
        """Channels of the largest grid."""

    @property
    def num_blocks(self) -> int:
        """Residual blocks on each grid."""

    @property
    def hidden(self) -> int:
        """Units of dense layers."""

    @property
    def num_mixtures(self) -> int:
        """Logistic components of each pixel."""

    @property
    def num_importance(self) -> int:
        """Draws behind one log-likelihood."""

    @property
    def batch_size(self) -> int:
        """Of training."""

    @property
    def learning_rate(self) -> float:
        """Of the autoencoder."""

    @property
    def warmup_steps(self) -> int:
        """Over which the learning rate rises."""

    @property
    def final_lr_share(self) -> float:
        """Of the learning rate, at the end."""

    @property
    def ema_decay(self) -> float | None:
        """Of the weights."""


class GaussianAutoencoder(GenerativeModel, LikelihoodBound, ContinuousLatents):
    """Encoder, decoder and the law of a pixel; a subclass has the loss.

    Args:
        spec: of images of integers.
        config: settings of the model.
        likelihood: p(x|z) of a pixel.
        clip_norm: of gradients per dimension; None leaves them.
        draws_at_once: decoded together in a log-likelihood.

    Raises:
        ValueError: the data are no images of integers.
    """

    def __init__(
        self,
        spec: DataSpec,
        config: Settings,
        *,
        likelihood: PixelLaw = "logistic",
        clip_norm: float | None = 1.0,
        draws_at_once: int = 1,
    ) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(f"`{name}` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        self.clip_norm, self.draws_at_once = clip_norm, draws_at_once
        self.pixels = pixel_likelihood(
            likelihood, levels=spec.levels, num_channels=spec.shape[0], num_mixtures=config.num_mixtures
        )
        self.encoder, self.decoder = conv_coder.networks(
            config.networks,
            spec.shape,
            width=config.width,
            num_blocks=config.num_blocks,
            hidden=config.hidden,
            latent_dim=config.latent_dim,
            num_outputs=self.pixels.num_outputs,
            initial_scale=self.pixels.initial_scale(),
        )

    def phases(self) -> tuple[Phase, ...]:
        """One phase: both networks climb the same objective."""
        return (Phase(name="fit", share=1.0, players=(self.player(),), batch_size=self.config.batch_size),)

    def player(self) -> Player:
        """Who trains encoder and decoder."""
        return Player(
            name="autoencoder",
            modules=(self.encoder, self.decoder),
            lr=self.config.learning_rate,
            clip_norm=self.clip_norm,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start a dense decoder at the mean image; from zero, the code is given up before the background is learned."""
        if self.config.networks == "dense":
            last = cast("nn.Sequential", self.decoder.stem)[-1]
            cast("nn.Linear", last).bias.copy_(self.pixels.values_of_mean(batch.x).flatten())

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw z ~ N(0, I), then x ~ p(x|z): (N, C, H, W) uint8."""
        z = torch.randn(num_samples, self.config.latent_dim, generator=generator, device=generator.device)
        return self.pixels.sample(*self.decoder(z), generator=generator)

    @property
    def likelihood_estimator(self) -> str:
        """The bound, and how many draws it takes."""
        return latent_bound.bound_estimator(self.config.num_importance)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Importance-weighted bound with `num_importance` draws, whatever the loss weighs: (B,), nats per example."""
        return latent_bound.importance_weighted_bound(
            *self.posterior(x),
            log_prob_given=lambda z: self.log_prob_given(x, z),
            num_draws=self.config.num_importance,
            generator=generator,
            draws_at_once=self.draws_at_once,
        )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Posterior means: (B, D)."""
        return self.posterior(x)[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (B, D): (B, C, H, W) uint8."""
        return self.pixels.mean(*self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the posterior means: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Moments mu and log sigma of q(z|x): (B, D) each."""
        moments: tuple[Tensor, Tensor] = self.encoder(to_signed(x, self.levels))
        return moments

    def log_prob_given(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z): (K B,), nats, for K codes of each of B images; row i of `z` belongs to image i mod B."""
        return self.pixels.log_prob(x.repeat(len(z) // len(x), 1, 1, 1), *self.decoder(z)).sum((1, 2))
