"""Variational autoencoder whose divergence weighs more than the bound asks, so that its code comes apart by itself.

beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework. Irina Higgins, Loic Matthey, Arka
Pal, Christopher Burgess, Xavier Glorot, Matthew Botvinick, Shakir Mohamed, Alexander Lerchner, 2017, ICLR, openreview
Sy2fzU9gl. The objective with a capacity is that of Understanding disentangling in beta-VAE. Christopher P. Burgess
and others, 2018, 1804.03599.

A code that is short of capacity spends it where it saves most of the reconstruction, on the directions in which images
vary most; and a posterior with a diagonal covariance wastes least when each of these directions is a dimension of
its own.

Symbols: x image, z code, mu and log_sigma of q(z|x), eps ~ N(0, I), beta and gamma weights, C capacity in nats.

- Eq. 4:          E_q(z|x) log p(x|z) - beta KL(q(z|x) || p(z)), maximised. beta = 1 is the evidence lower bound,
  beta > 1 a looser one, beta < 1 none; so `log_likelihood` evaluates the bound, beta = 1, whatever the training was.
- Burgess, Eq. 8: E_q(z|x) log p(x|z) - gamma |KL(q(z|x) || p(z)) - C|, C rising in a line from 0 to `capacity` over
  `capacity_steps` steps: directions enter the code one after the other, and none is blurred in the end.
- Evaluation:     log 1/K sum_k p(x, z_k) / q(z_k|x), the importance-weighted bound of Burda et al. (2015, 1509.00519,
  Eq. 8).

**Departures**: a discretised-logistic decoder over the stored integers, so that bits per dimension are those of the
integers; on data of two levels it is the papers' Bernoulli. Its scales are learned and widen as the code is squeezed,
which makes a nat of code worth less still: the code empties within a narrow range of beta (`small` at 16 px after 1,250
steps: 22 nats at beta 4, 5 nats at beta 8), and the papers' betas do not carry over. Both objectives are divided by the
dimensions of the image, and gradients are clipped to norm 1. `paper` is the network of Higgins et al. for CelebA (Table
1: convolutions of 32, 32, 64 and 64 channels, 256 units, 32 codes, Adam at 1e-4) with the beta of their Sec. 4.2; at 32
px it has one convolution less. The batch size, which the table does not give, is 64. `smoke` and `small` have residual
networks, a learning rate that rises and falls, averaged weights, and a smaller weight on the capacity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

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


@register_model("beta_vae")
class BetaVAE(GaussianAutoencoder):
    """The beta-VAE, with a fixed weight or a rising capacity."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        beta: NonNegative = 4.0
        """Weight of the divergence in training; 1 optimises the bound. Of no effect with a capacity."""
        capacity: NonNegative | None = None
        """Nats that the code holds at the end of training (Burgess et al., 2018); None weighs by `beta` instead."""
        capacity_steps: Count = 500
        """Steps over which the capacity rises from 0; the rest of the training learns to use it."""
        capacity_weight: NonNegative = 30.0
        """gamma; 1000 in Burgess et al. More than a nat of code is worth keeps the divergence at the capacity."""
        latent_dim: Count = 10
        networks: Literal["residual", "strided"] = "residual"
        width: Count = 32
        """Channels of the largest grid."""
        num_blocks: Count = 2
        """Residual blocks on each grid of either residual network."""
        hidden: Count = 256
        """Units of the dense layers between grid and code."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        num_importance: Count = 16
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        batch_size: Count = 32
        learning_rate: Positive = 3e-3
        warmup_steps: Whole = 50
        """Over which the learning rate rises."""
        final_lr_share: Share = 0.05
        """Of the learning rate, reached along a cosine; 1 keeps it."""
        ema_decay: Fraction | None = 0.99
        """Of the weights; the average spans about 1 / (1 - decay) steps. None keeps the last weights."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(num_blocks=1, capacity_steps=50, learning_rate=2e-3, warmup_steps=10, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            networks="strided",
            latent_dim=32,
            capacity_steps=100_000,
            capacity_weight=1000.0,
            batch_size=64,
            learning_rate=1e-4,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=None,
        ),
    }

    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.steps_taken: Tensor

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative objective with one draw, in nats per dimension so that it does not grow with the image."""
        mu, log_sigma = self.posterior(batch.x)
        z = gaussian.reparameterised(mu, log_sigma)
        distortion = -self.log_prob_given(batch.x, z).mean()
        rate = gaussian.kl_to_standard(mu, log_sigma).sum(1).mean()
        total = (distortion + self._price(rate)) / self.spec.num_dims
        parts = {"distortion": distortion / self.spec.num_dims, "rate": rate / self.spec.num_dims}
        return Loss(total, {name: part.detach() for name, part in parts.items()})

    def _price(self, rate: Tensor) -> Tensor:
        """What the divergence costs: beta KL, or gamma |KL - C| with the capacity C of this step."""
        if self.config.capacity is None:
            return self.config.beta * rate
        capacity = self.config.capacity * (self.steps_taken / self.config.capacity_steps).clamp_max(1.0)
        if self.training and torch.is_grad_enabled():  # an evaluation of the loss is no step
            self.steps_taken += 1
        return self.config.capacity_weight * (rate - capacity).abs()
