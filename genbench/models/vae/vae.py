"""Variational autoencoder with a convolutional encoder and a discretised-logistic decoder.

Auto-Encoding Variational Bayes. Diederik P. Kingma and Max Welling, 2013, 1312.6114.

A code z ~ N(0, I) is decoded into the distribution of an image; an encoder proposes which codes could
have made an image, and both are trained on one lower bound of the image's log-likelihood. The draw from
the encoder is written mu + sigma eps, so that its gradient reaches the encoder.

Symbols: x image, z code, mu and log_sigma of q(z|x), eps ~ N(0, I), K number of draws.

- Eq. 3 and 10:  L(x) = E_q(z|x) log p(x|z) - KL(q(z|x) || p(z)) <= log p(x); the divergence is analytic (Appendix B).
- Evaluation:    log 1/K sum_k p(x, z_k) / q(z_k|x), the importance-weighted bound of Burda et al. (2015, 1509.00519,
  Eq. 8): K = 1 is L in expectation, and more draws only tighten it.
- `beta` other than 1 (Higgins et al., 2017) weighs the divergence in training; that objective is no bound for
  beta < 1 and a loose one for beta > 1, so `log_likelihood` always evaluates the true bound, beta = 1.

**Departures**: residual convolutions and two dense layers in place of one hidden layer of 500 units; Adam,
batches of 32 and averaged weights in place of Adagrad and batches of 100; a mixture of discretised logistics
over the stored integers (one component for a whole pixel, scales learned but shared by all pixels) in place of
a Bernoulli or Gaussian decoder, so that bits per dimension are those of the integers. The `paper` preset
keeps the paper's largest code, 200, and scales up these networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    ContinuousLatents,
    GenerativeModel,
    LikelihoodBound,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.nn import conv_coder
from genbench.prob import discretized_logistic as logistic
from genbench.prob import gaussian, latent_bound
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("vae")
class VAE(GenerativeModel, LikelihoodBound, ContinuousLatents):
    """The variational autoencoder."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        latent_dim: int = 12
        width: int = 32
        """Channels of every grid."""
        num_blocks: int = 2
        """Residual blocks on each grid of either network."""
        hidden: int = 256
        """Units of the dense layers between grid and code."""
        num_mixtures: int = 1
        """Logistic components of each pixel."""
        beta: float = 1.0
        """Weight of the divergence in training; only 1 optimises the bound."""
        num_importance: int = 16
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        learning_rate: float = 3e-3
        ema_decay: float = 0.99
        """Of the weights; the average spans about 1 / (1 - decay) steps."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(num_blocks=1, learning_rate=2e-3, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            latent_dim=200, width=256, num_blocks=4, hidden=500, num_mixtures=5, learning_rate=2e-4, ema_decay=0.9999
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`vae` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        self.encoder, self.decoder = conv_coder.networks(
            "residual",
            spec.shape,
            width=config.width,
            num_blocks=config.num_blocks,
            hidden=config.hidden,
            latent_dim=config.latent_dim,
            num_outputs=logistic.num_parameters(config.num_mixtures, spec.shape[0]),
            initial_scale=logistic.initial_scale(config.num_mixtures, spec.shape[0]),
        )

    def phases(self) -> tuple[Phase, ...]:
        """One phase: both networks climb the same bound."""
        player = Player(
            name="autoencoder",
            modules=(self.encoder, self.decoder),
            lr=self.config.learning_rate,
            clip_norm=1.0,
            warmup_steps=50,
            final_lr_share=0.05,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=32),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative bound with one draw, in nats per dimension so that it does not grow with the image."""
        mu, log_sigma = self.encoder(to_signed(batch.x, self.levels))
        z = gaussian.reparameterised(mu, log_sigma)
        distortion = -self._log_prob_given(batch.x, z).mean() / self.spec.num_dims
        rate = gaussian.kl_to_standard(mu, log_sigma).sum(1).mean() / self.spec.num_dims
        total = distortion + self.config.beta * rate
        return Loss(total, {"distortion": distortion.detach(), "rate": rate.detach()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw z ~ N(0, I), then x ~ p(x|z): (N, C, H, W) uint8."""
        z = torch.randn(num_samples, self.config.latent_dim, generator=generator, device=generator.device)
        return logistic.mixture_sample(self._image_given(z), levels=self.levels, generator=generator)

    @property
    def likelihood_estimator(self) -> str:
        """The bound, and how many draws it takes."""
        return latent_bound.bound_estimator(self.config.num_importance)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Importance-weighted bound with `num_importance` draws: (B,), nats per example."""
        mu, log_sigma = self.encoder(to_signed(x, self.levels))
        return latent_bound.importance_weighted_bound(
            mu,
            log_sigma,
            log_prob_given=lambda z: self._log_prob_given(x, z),
            num_draws=self.config.num_importance,
            generator=generator,
        )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Posterior means: (B, latent_dim)."""
        mu: Tensor = self.encoder(to_signed(x, self.levels))[0]
        return mu

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (B, latent_dim): (B, C, H, W) uint8."""
        return logistic.mixture_mean(self._image_given(z), levels=self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the posterior means: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _image_given(self, z: Tensor) -> logistic.Mixture:
        """p(x|z)."""
        return logistic.split_mixture(*self.decoder(z))

    def _log_prob_given(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z): (B,), nats."""
        return logistic.mixture_log_prob(x, self._image_given(z), levels=self.levels).sum((1, 2))
