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
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    Loss,
    register_model,
)
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._gaussian_autoencoder import GaussianAutoencoder
from genbench.prob import latent_bound

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("iwae")
class IWAE(GaussianAutoencoder):
    """The importance-weighted autoencoder, with either gradient."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_draws: Count = 5
        """K of the training bound; 1 is a variational autoencoder whose divergence is estimated from one draw."""
        gradient: Literal["reparameterised", "doubly_reparameterised"] = "reparameterised"
        """Of the encoder: the paper's, or one with the same mean and less noise (Tucker et al., 2018)."""
        likelihood: Literal["logistic", "gaussian", "bernoulli"] = "logistic"
        """p(x|z) of a pixel."""
        latent_dim: Count = 12
        networks: Literal["residual", "dense"] = "residual"
        width: Count = 32
        """Channels of every grid; of the residual networks only."""
        num_blocks: Count = 2
        """Residual blocks on each grid of either residual network."""
        hidden: Count = 256
        """Units of the dense layers between grid and code; of both hidden layers where all are dense."""
        num_mixtures: Count = 1
        """Logistic components of each pixel; the other likelihoods have one."""
        num_importance: Count = 16
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        draws_at_once: Count = 1
        """Of these, decoded together: faster on small batches and small networks, in memory that grows with it."""
        batch_size: Count = 32
        learning_rate: Positive = 3e-3
        warmup_steps: Whole = 50
        """Over which the learning rate rises."""
        final_lr_share: Share = 0.05
        """Of the learning rate, reached along a cosine; 1 keeps it."""
        clip_norm: Positive | None = 1.0
        """Of gradients per dimension; None leaves them."""
        ema_decay: Fraction | None = 0.99
        """Of the weights; the average spans about 1 / (1 - decay) steps. None keeps the last weights."""

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

    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(
            spec,
            config,
            likelihood=config.likelihood,
            clip_norm=config.clip_norm,
            draws_at_once=config.draws_at_once,
        )

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative bound with `num_draws` draws, in nats per dimension so that it does not grow with the image."""
        mu, log_sigma = self.posterior(batch.x)
        z = latent_bound.draws(mu, log_sigma, num_draws=self.config.num_draws)  # (K, B, D)
        if self.config.gradient == "doubly_reparameterised":
            mu, log_sigma = mu.detach(), log_sigma.detach()
        log_w = latent_bound.log_weights(
            z, mu, log_sigma, log_prob_given=lambda codes: self.log_prob_given(batch.x, codes)
        )
        if self.config.gradient == "doubly_reparameterised" and z.requires_grad:
            share = log_w.detach().softmax(0).unsqueeze(2)  # w~_k; the logarithm below brings it in once already
            z.register_hook(lambda slope: share * slope)
        bound = (torch.logsumexp(log_w, dim=0) - math.log(len(log_w))).mean() / self.spec.num_dims
        effective = 1.0 / log_w.detach().softmax(0).square().sum(0)
        return Loss(-bound, {"effective_draws": effective.mean()})
