"""Variational autoencoder, convolutional or dense, whose decoder is logistic, Gaussian or Bernoulli.

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
- `likelihood` is p(x|z) of a pixel: `logistic`, `gaussian` or `bernoulli`, each a probability of the stored integers
  that sums to 1, so that bits per dimension mean the same with all three (`prob/pixel_likelihood.py`). The Gaussian is
  that of the paper, integrated over the bin of each integer. The Bernoulli is meant for data of two levels; on more
  levels it counts the heads in levels - 1 throws of the same coin.

**Presets** beside the usual: `bernoulli` and `gaussian` are `small` with the paper's own decoders. `dense` is the
network that Burda et al. train on binarised MNIST, and with it most papers that quote a likelihood of a plain
autoencoder: two layers of 200 tanh units either way, 50 codes, batches of 20, likelihoods from 5,000 draws. They train
for 3,280 epochs on images binarised anew in each, which is up to the data.

**Departures**: residual convolutions and two dense layers in place of one hidden layer of 500 units; Adam, batches of
32 and averaged weights in place of Adagrad and batches of 100; in `smoke`, `small` and `paper` a mixture of
discretised logistics (one component for a whole pixel, scales learned but shared by all pixels) in place of a
Bernoulli or Gaussian decoder. The `paper` preset keeps the paper's largest code, 200, and scales up these networks.
The variance of the Gaussian is learned, but one for all pixels of a channel. `dense` departs from Burda et al. in a
learning rate that falls from 1e-3 to 1e-4 along a cosine and not in eight steps, Adam's usual epsilon in place of
1e-4, and output biases that start at the mean of the first images and not of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Generator, Tensor, nn

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
from genbench.prob import gaussian, latent_bound
from genbench.prob.pixel_likelihood import pixel_likelihood
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("vae")
class VAE(GenerativeModel, LikelihoodBound, ContinuousLatents):
    """The variational autoencoder."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        likelihood: Literal["logistic", "gaussian", "bernoulli"] = "logistic"
        """p(x|z) of a pixel."""
        latent_dim: int = 12
        networks: Literal["residual", "dense"] = "residual"
        width: int = 32
        """Channels of every grid; of the residual networks only."""
        num_blocks: int = 2
        """Residual blocks on each grid of either residual network."""
        hidden: int = 256
        """Units of the dense layers between grid and code; of both hidden layers where all are dense."""
        num_mixtures: int = 1
        """Logistic components of each pixel; the other likelihoods have one."""
        beta: float = 1.0
        """Weight of the divergence in training; only 1 optimises the bound."""
        num_importance: int = 16
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        draws_at_once: int = 1
        """Of these, decoded together: faster on small batches and small networks, in memory that grows with it."""
        batch_size: int = 32
        learning_rate: float = 3e-3
        warmup_steps: int = 50
        """Over which the learning rate rises."""
        final_lr_share: float = 0.05
        """Of the learning rate, reached along a cosine; 1 keeps it."""
        clip_norm: float | None = 1.0
        """Of gradients per dimension; None leaves them."""
        ema_decay: float | None = 0.99
        """Of the weights; the average spans about 1 / (1 - decay) steps. None keeps the last weights."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(num_blocks=1, learning_rate=2e-3, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            latent_dim=200, width=256, num_blocks=4, hidden=500, num_mixtures=5, learning_rate=2e-4, ema_decay=0.9999
        ),
        "bernoulli": Config(likelihood="bernoulli"),
        "gaussian": Config(likelihood="gaussian"),
        "dense": Config(
            likelihood="bernoulli",
            networks="dense",
            latent_dim=50,
            hidden=200,
            num_importance=5000,
            draws_at_once=50,
            batch_size=20,
            learning_rate=1e-3,
            warmup_steps=0,
            final_lr_share=0.1,
            clip_norm=None,
            ema_decay=None,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`vae` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        self.pixels = pixel_likelihood(
            config.likelihood, levels=spec.levels, num_channels=spec.shape[0], num_mixtures=config.num_mixtures
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
        """One phase: both networks climb the same bound."""
        player = Player(
            name="autoencoder",
            modules=(self.encoder, self.decoder),
            lr=self.config.learning_rate,
            clip_norm=self.config.clip_norm,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start a dense decoder at the mean image; from zero, the code is given up before the background is learned."""
        if self.config.networks == "dense":
            last = cast("nn.Sequential", self.decoder.stem)[-1]
            cast("nn.Linear", last).bias.copy_(self.pixels.values_of_mean(batch.x).flatten())

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
        return self.pixels.sample(*self.decoder(z), generator=generator)

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
            draws_at_once=self.config.draws_at_once,
        )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Posterior means: (B, latent_dim)."""
        mu: Tensor = self.encoder(to_signed(x, self.levels))[0]
        return mu

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (B, latent_dim): (B, C, H, W) uint8."""
        return self.pixels.mean(*self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the posterior means: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _log_prob_given(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z): (K B,), nats, for K codes of each of B images; row i of `z` belongs to image i mod B."""
        return self.pixels.log_prob(x.repeat(len(z) // len(x), 1, 1, 1), *self.decoder(z)).sum((1, 2))
