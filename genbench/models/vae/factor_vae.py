"""Variational autoencoder whose codes a discriminator must not tell from codes with independent dimensions.

Disentangling by Factorising. Hyunjik Kim and Andriy Mnih, 2018, 1802.05983.

The divergence of the bound has two parts: what the code says about the image, which is wanted, and how far the
codes of all images together are from the prior. Of the latter FactorVAE penalises the total correlation alone, and
estimates it with a discriminator, a second player that learns to tell codes from codes with permuted dimensions.

Symbols: x image, z code, q(z) = E_x q(z|x) all codes together, D probability that a code has not been permuted.

- Eq. 2:        E_q(z|x) log p(x|z) - KL(q(z|x) || p(z)) - gamma KL(q(z) || prod_d q(z_d)), maximised. gamma = 0 is the
  evidence lower bound, which `log_likelihood` evaluates whatever the training was.
- Eq. 3:        KL(q(z) || prod_d q(z_d)) ~ E_q(z) log D(z) / (1 - D(z)).
- Algorithm 2:  the autoencoder climbs Eq. 2 with D held fixed; then D climbs 1/2 E log D(z) + 1/2 E log(1 - D(z')),
  with permuted codes z' (Algorithm 1) and all codes held fixed.
- Evaluation:   log 1/K sum_k p(x, z_k) / q(z_k|x), the importance-weighted bound of Burda et al. (2015, 1509.00519,
  Eq. 8).

**Departures**: a discretised-logistic decoder over the stored integers, so that bits per dimension are those of the
integers; on data of two levels it is the paper's Bernoulli. The discriminator has one output, the logit, and permutes
the codes of its own batch, where the paper takes a further batch for them. The objective is divided by the
dimensions of the image, and gradients of the autoencoder are clipped to norm 1. `paper` is Appendix A:
convolutions of 32, 32, 64 and 64 channels (one fewer at 32 px), 128 units, 10 codes, six hidden layers of 1000 units in
the discriminator, batches of 64, Adam at 1e-4, with the gamma = 35 of their Sec. 5 on 2D shapes. `smoke` and `small`
have residual networks, a smaller discriminator, a learning rate that rises and falls, and averaged weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._gaussian_autoencoder import GaussianAutoencoder
from genbench.prob import gaussian
from genbench.prob.total_correlation import discrimination_loss, permuted

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


SLOPE = 0.2
"""Of the leaky ReLU (Appendix A)."""
DISCRIMINATOR_BETAS = (0.5, 0.9)
"""Adam's, of the discriminator (Appendix A)."""


class Discriminator(nn.Module):
    """Codes (B, D) to the logit that they have not been permuted, (B,)."""

    def __init__(self, latent_dim: int, *, num_layers: int, hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in [latent_dim, *[hidden] * (num_layers - 1)]:
            layers += [nn.Linear(inputs, hidden), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, z: Tensor) -> Tensor:
        """Log D(z) / (1 - D(z)), float32."""
        logit: Tensor = self.layers(z).squeeze(1).float()
        return logit


@register_model("factor_vae")
class FactorVAE(GaussianAutoencoder):
    """The FactorVAE: an autoencoder and a discriminator of its codes."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        gamma: NonNegative = 10.0
        """Weight of the total correlation in training; 0 optimises the bound."""
        latent_dim: Count = 10
        networks: Literal["residual", "strided"] = "residual"
        width: Count = 32
        """Channels of the largest grid."""
        num_blocks: Count = 2
        """Residual blocks on each grid of either residual network."""
        hidden: Count = 256
        """Units of the dense layers between grid and code."""
        discriminator_layers: Count = 4
        """Hidden layers of the discriminator."""
        discriminator_hidden: Count = 256
        """Units of each."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        num_importance: Count = 16
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        batch_size: Count = 32
        learning_rate: Positive = 3e-3
        discriminator_learning_rate: Positive = 1e-3
        warmup_steps: Whole = 50
        """Of the autoencoder, over which its learning rate rises."""
        final_lr_share: Share = 0.05
        """Of either learning rate, reached along a cosine; 1 keeps it."""
        ema_decay: Fraction | None = 0.99
        """Of the autoencoder; the average spans about 1 / (1 - decay) steps. None keeps the last weights."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(num_blocks=1, discriminator_layers=2, learning_rate=2e-3, warmup_steps=10, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            gamma=35.0,
            networks="strided",
            hidden=128,
            discriminator_layers=6,
            discriminator_hidden=1000,
            batch_size=64,
            learning_rate=1e-4,
            discriminator_learning_rate=1e-4,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=None,
        ),
    }

    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.discriminator = Discriminator(
            config.latent_dim, num_layers=config.discriminator_layers, hidden=config.discriminator_hidden
        )

    def phases(self) -> tuple[Phase, ...]:
        """One phase in which the autoencoder and the discriminator take turns."""
        discriminator = Player(
            name="discriminator",
            modules=(self.discriminator,),
            lr=self.config.discriminator_learning_rate,
            betas=DISCRIMINATOR_BETAS,
            final_lr_share=self.config.final_lr_share,
        )
        players = (self.player(), discriminator)
        return (Phase(name="fit", share=1.0, players=players, batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `autoencoder`, in nats per dimension, or of `discriminator`, in nats."""
        if player == "discriminator":
            return self._discriminator_loss(batch)
        return self._autoencoder_loss(batch)

    def _autoencoder_loss(self, batch: Batch) -> Loss:
        """Negative Eq. 2 with one draw; the discriminator's weights are constants of it."""
        mu, log_sigma = self.posterior(batch.x)
        z = gaussian.reparameterised(mu, log_sigma)
        distortion = -self.log_prob_given(batch.x, z).mean()
        rate = gaussian.kl_to_standard(mu, log_sigma).sum(1).mean()
        constants = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        total_correlation = torch.func.functional_call(self.discriminator, constants, (z,)).mean()  # Eq. 3
        total = distortion + rate + self.config.gamma * total_correlation
        parts = {"distortion": distortion, "rate": rate, "total_correlation": total_correlation}
        num_dims = self.spec.num_dims
        return Loss(total / num_dims, {name: part.detach() / num_dims for name, part in parts.items()})

    def _discriminator_loss(self, batch: Batch) -> Loss:
        """Cross-entropy between codes and permuted codes; the encoder is a constant of it."""
        with torch.no_grad():
            z = gaussian.reparameterised(*self.posterior(batch.x))
        # Both kinds share a pass: nothing in the discriminator couples the examples of a batch.
        logits, logits_of_permuted = self.discriminator(torch.cat([z, permuted(z)])).chunk(2)
        return Loss(discrimination_loss(logits, logits_of_permuted))
