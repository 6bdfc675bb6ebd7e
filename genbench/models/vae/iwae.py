"""Importance-weighted autoencoder: a variational autoencoder trained on the bound that many draws tighten.

Importance Weighted Autoencoders. Yuri Burda, Roger Grosse, Ruslan Salakhutdinov, 2015, 1509.00519. The setting
`gradient` offers that of Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives. George Tucker,
Dieterich Lawson, Shixiang Gu, Chris J. Maddison, 2018, 1810.04152.

The evidence lower bound punishes the encoder for every draw that explains the image badly, and so pushes posteriors
towards what the encoder can express. A bound that averages the weights of several draws before the logarithm asks only
that some of them be good: the code keeps more, and the bound is nearer to the log-likelihood.

Symbols: x image, z code, K draws of training, w_k weight of a draw, w~_k = w_k / sum_j w_j.

- Bound:      L_K(x) = E log 1/K sum_k w_k, w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x) (Eq. 8). L_1 is the evidence lower
  bound, and L_K <= L_K+1 <= log p(x) (Theorem 1).
- Gradient:   E sum_k w~_k grad log w_k, through z_k = mu + sigma eps_k (Sec. 3).
- Tucker et al.: as K grows, the encoder's gradient drowns in its own noise. `gradient="doubly_reparameterised"` has the
  same mean without the score of q: for the encoder E sum_k w~_k^2 (d log w_k / d z_k) grad z_k, where mu and sigma
  inside q(z_k|x) are held constant.
- Evaluation: the same bound with more draws, `num_importance`; 5,000 in the paper.

**Departures**: `paper` is the network of the paper's rows with one layer of codes on MNIST (two layers of 200 tanh
units either way, 50 codes, K = 50, batches of 20). It is meant for data of two levels, which the paper binarises anew
in every one of 3,280 epochs; on more levels each pixel counts heads in levels - 1 throws of a coin
(`prob/pixel_likelihood.py`). The learning rate falls from 1e-3 to 1e-4 along a cosine and not in eight steps, Adam has
its usual epsilon in place of 1e-4, and output biases start at the mean of the first images and not of all. The model
with two layers of codes is left out. `smoke` and `small` have K = 5 and are otherwise the presets of `vae`: residual
convolutions, a discretised-logistic decoder over the stored integers, a learning rate that rises and falls, averaged
weights. The objective is divided by the dimensions of the image.
"""

from __future__ import annotations

import dataclasses
import math
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
from genbench.prob import latent_bound
from genbench.prob.pixel_likelihood import pixel_likelihood
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("iwae")
class IWAE(GenerativeModel, LikelihoodBound, ContinuousLatents):
    """The importance-weighted autoencoder, with either gradient."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_draws: int = 5
        """K of the training bound; 1 is a variational autoencoder whose divergence is estimated from one draw."""
        gradient: Literal["reparameterised", "doubly_reparameterised"] = "reparameterised"
        """Of the encoder: the paper's, or one with the same mean and less noise (Tucker et al., 2018)."""
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

        def __post_init__(self) -> None:
            if self.num_draws < 1:
                raise ValueError(f"`num_draws` is {self.num_draws}, expected at least 1")

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(num_blocks=1, learning_rate=2e-3, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            num_draws=50,
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
            raise ValueError(f"`iwae` needs images of integers, found {spec.kind} data of shape {spec.shape}")
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
        """Negative bound with `num_draws` draws, in nats per dimension so that it does not grow with the image."""
        mu, log_sigma = self.encoder(to_signed(batch.x, self.levels))
        z = latent_bound.draws(mu, log_sigma, num_draws=self.config.num_draws)  # (K, B, D)
        if self.config.gradient == "doubly_reparameterised":
            mu, log_sigma = mu.detach(), log_sigma.detach()
        log_w = latent_bound.log_weights(
            z, mu, log_sigma, log_prob_given=lambda codes: self._log_prob_given(batch.x, codes)
        )
        if self.config.gradient == "doubly_reparameterised" and z.requires_grad:
            share = log_w.detach().softmax(0).unsqueeze(2)  # w~_k; the logarithm below brings it in once already
            z.register_hook(lambda slope: share * slope)
        bound = (torch.logsumexp(log_w, dim=0) - math.log(len(log_w))).mean() / self.spec.num_dims
        effective = 1.0 / log_w.detach().softmax(0).square().sum(0)
        return Loss(-bound, {"effective_draws": effective.mean()})

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
        """Means of q(z|x), of which the bound takes many draws: (B, latent_dim)."""
        mu: Tensor = self.encoder(to_signed(x, self.levels))[0]
        return mu

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (B, latent_dim): (B, C, H, W) uint8."""
        return self.pixels.mean(*self.decoder(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the means of q(z|x): (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _log_prob_given(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z): (K B,), nats, for K codes of each of B images; row i of `z` belongs to image i mod B."""
        return self.pixels.log_prob(x.repeat(len(z) // len(x), 1, 1, 1), *self.decoder(z)).sum((1, 2))
