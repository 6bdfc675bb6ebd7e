"""Variational autoencoder that penalises the total correlation of its codes, estimated from the minibatch itself.

Isolating Sources of Disentanglement in Variational Autoencoders. Ricky T. Q. Chen, Xuechen Li, Roger Grosse, David
Duvenaud, 2018, 1802.04942.

The mean divergence of the bound is a sum of three: what a code tells about which example it is of, the total
correlation of its dimensions, and a divergence for each dimension. beta-TCVAE weighs the second alone, and needs no
second network for it: the density of a code under all posteriors is estimated from those of the batch.

Symbols: x image, z code, n index of a training example, q(z) = E_n q(z|n), N examples, M of them in a batch.

- Eq. 2:      E_n KL(q(z|n) || p(z)) = I(z; n) + KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d)).
- Eq. 3:      E log q(z) ~ 1/M sum_i log 1/(N M) sum_j q(z_i|n_j) with z_i ~ q(z|n_i): minibatch-weighted sampling, and
  likewise for each q(z_d). `sampling="stratified"` takes the unbiased density of the appendix instead. Both are in
  `prob/total_correlation.py`.
- Eq. 4:      E log p(x|z) - alpha I(z; n) - beta KL(q(z) || prod_d q(z_d)) - gamma sum_d KL(q(z_d) || p(z_d)),
  maximised, with alpha = gamma = 1. By Eq. 2 that is E log p(x|z) - KL(q(z|x) || p(z)) - (beta - 1) TC, the
  form used here. beta = 1 is the evidence lower bound, which `log_likelihood` evaluates whatever the training was.
- Evaluation: log 1/K sum_k p(x, z_k) / q(z_k|x), the importance-weighted bound of Burda et al. (2015, 1509.00519,
  Eq. 8).

**Departures**: the divergence is analytic, which leaves the estimate of the total correlation as the only one in the
loss. A discretised-logistic decoder over the stored integers, so that bits per dimension are those of the integers; on
data of two levels it is the paper's Bernoulli. The objective is divided by the dimensions of the image, and gradients
are clipped to norm 1. `paper` has the convolutions of the authors' code (32, 32, 64 and 64 channels, one fewer at 32
px, 512 units) without its batch normalisation, and its settings: 10 codes, batches of 2048, Adam at 1e-3. Its beta of
6 is from the middle of the range that Locatello et al. (2019, 1811.12359) search. `smoke` and `small` have residual
networks, a learning rate that rises and falls, and averaged weights.
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
from genbench.prob import gaussian, total_correlation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


AGGREGATES = {
    "weighted": total_correlation.weighted_aggregate,
    "stratified": total_correlation.stratified_aggregate,
}


@register_model("beta_tcvae")
class BetaTCVAE(GaussianAutoencoder):
    """The beta-TCVAE, with either way to estimate the total correlation."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        beta: NonNegative = 6.0
        """Weight of the total correlation in training; 1 optimises the bound."""
        sampling: Literal["weighted", "stratified"] = "weighted"
        """How log q(z) is estimated from a batch."""
        dataset_size: Count = 50_000
        """N. Weighted sampling only shifts the logged parts by it; stratified sampling weighs examples by it."""
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
        "smoke": Config(num_blocks=1, learning_rate=2e-3, warmup_steps=10, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            networks="strided",
            hidden=512,
            batch_size=2048,
            learning_rate=1e-3,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=None,
        ),
    }

    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative Eq. 4 with one draw, in nats per dimension so that it does not grow with the image."""
        mu, log_sigma = self.posterior(batch.x)
        z = gaussian.reparameterised(mu, log_sigma)
        distortion = -self.log_prob_given(batch.x, z).mean()
        rate = gaussian.kl_to_standard(mu, log_sigma).sum(1).mean()
        log_q = total_correlation.pairwise_log_prob(z, mu, log_sigma)
        aggregate = AGGREGATES[self.config.sampling](log_q, dataset_size=self.config.dataset_size)
        excess = (self.config.beta - 1.0) * aggregate.total_correlation().mean()
        of_rate = total_correlation.decompose(z, mu, log_sigma, aggregate=aggregate)
        parts = {"distortion": distortion, "rate": rate}
        parts |= {name: part.mean() for name, part in of_rate._asdict().items()}
        num_dims = self.spec.num_dims
        total = (distortion + rate + excess) / num_dims
        return Loss(total, {name: part.detach() / num_dims for name, part in parts.items()})
