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
from typing import TYPE_CHECKING, ClassVar, Literal

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    Loss,
    register_model,
)
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._gaussian_autoencoder import GaussianAutoencoder
from genbench.prob import gaussian

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("vae")
class VAE(GaussianAutoencoder):
    """The variational autoencoder."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

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
        beta: NonNegative = 1.0
        """Weight of the divergence in training; only 1 optimises the bound."""
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
        """Negative bound with one draw, in nats per dimension so that it does not grow with the image."""
        mu, log_sigma = self.posterior(batch.x)
        z = gaussian.reparameterised(mu, log_sigma)
        distortion = -self.log_prob_given(batch.x, z).mean() / self.spec.num_dims
        rate = gaussian.kl_to_standard(mu, log_sigma).sum(1).mean() / self.spec.num_dims
        total = distortion + self.config.beta * rate
        return Loss(total, {"distortion": distortion.detach(), "rate": rate.detach()})
