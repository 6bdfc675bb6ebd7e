"""Generator trained on the Sinkhorn divergence between a batch of its samples and a batch of data.

Learning Generative Models with Sinkhorn Divergences. Aude Genevay, Gabriel Peyre, Marco Cuturi, 2018. arXiv:1706.00292

The optimal transport cost between two batches is a loss that needs no critic, but it is dear and its mean is not least
where the laws are equal. Some entropy makes it cheap and smooth, and taking off half of what each batch costs against
itself removes what the entropy adds: between optimal transport and a kernel distance, by the weight of the entropy.

Legend: `x` data, `y = g(z)` generated, `z` ~ N(0, I), `OT_eps` entropic transport cost (`prob.sinkhorn`), `c` its cost:

    loss of g   = OT_eps(y, x) - OT_eps(y, y) / 2 - OT_eps(x, x) / 2       (half of the paper's)
    c(x, y)     = |x - y|^2                       `cost=euclidean`
    c(x, y)     = |h(x) - h(y)|^2                 `cost=learned`: h maximises the loss, its weights clipped as in `wgan`

Batches of m points are another law than the one they come from: transport between them costs more, and the divergence
is that of batches, of the order 1 / sqrt(m) for a large eps (Genevay et al. 2019, arXiv:1810.02733).
Modes that do not touch stay joined: of eight Gaussians on a ring, `vector` draws a fifth of its samples farther than
four deviations from every mean after 500 steps and a sixth after 1500, and no fewer with a third of the entropy.

**Departures**
- The paper differentiates its L iterations and has the transport part of the cost alone as its value; here that is the
  whole OT_eps, entropy included, at potentials that have settled or taken `sinkhorn_steps`, and its gradient the plan
  (Feydy et al. 2019, arXiv:1810.08278).
- eps is a share of the mean cost between data in the batch, to follow a learned cost; the paper's is a number.
- Networks are those of `wgan_gp`; samples come from an average of the weights.
- Sizes and rates are ours; `paper` has the learned cost with those of `wgan` and batches of 200, the other presets have
  the Euclidean cost, whose pictures are a little blurred.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share
from genbench.models._latent_generator import LatentGenerator, held_constant
from genbench.prob.sinkhorn import entropic_cost, own_entropic_cost, squared_costs

BETAS = (0.5, 0.99)
"""Of Adam."""


@register_model("sinkhorn_generator")
class SinkhornGenerator(LatentGenerator):
    """A generator whose batches are transported to data; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training."""

        networks: Literal["residual", "strided"] = "strided"
        """Of images; vectors have MLPs."""
        latent_dim: Count = 64
        channels: Count = 64
        """Width of the generator at its largest grid."""
        critic_channels: Count = 32
        """Width of the network of a learned cost at its largest grid."""
        vector_width: Count = 128
        """Of the layers of both MLPs."""
        cost: Literal["euclidean", "learned"] = "euclidean"
        """Between points, or between what a network makes of them."""
        feature_dim: Count = 64
        """Length of h."""
        clip: Positive = 0.05
        """Of the weights of h."""
        cost_turns: Count = 1
        """Steps of a learned cost for each one of the generator."""
        epsilon_share: Positive = 0.05
        """Weight of the entropy over the mean cost between data."""
        sinkhorn_steps: Count = 200
        """At most, in each of the three transports."""
        lr: Positive = 1e-3
        final_lr_share: Share = 0.05
        ema_decay: Fraction = 0.99
        """Of the generator's weights."""
        batch_size: Count = 200

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(latent_dim=32, channels=48, critic_channels=24, batch_size=128, ema_decay=0.98),
        "small": Config(),
        "vector": Config(latent_dim=2, epsilon_share=0.01, lr=2e-3, batch_size=256),
        "paper": Config(
            networks="residual",
            latent_dim=100,
            channels=128,
            critic_channels=128,
            cost="learned",
            clip=0.01,
            cost_turns=5,
            lr=5e-5,
            final_lr_share=1.0,
            ema_decay=0.999,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.config = config
        self.features: nn.Module = nn.Flatten()
        if config.cost == "learned":
            self.features = self.make_critic(num_outputs=config.feature_dim)

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the learned cost, if there is one, then the generator."""
        config = self.config
        generator = Player(
            name="generator",
            modules=(self.generator,),
            lr=config.lr,
            betas=BETAS,
            final_lr_share=config.final_lr_share,
            ema_decay=config.ema_decay,
        )
        cost = dataclasses.replace(
            generator, name="cost", modules=(self.features,), turns=config.cost_turns, ema_decay=None
        )
        players = (cost, generator) if config.cost == "learned" else (generator,)
        return (Phase(name="transport", share=1.0, players=players, batch_size=config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """The divergence, for `generator`, or less it, for `cost`."""
        x = self.on_scale(batch.x)
        if self.config.cost == "learned":
            self.clip_features()
        if player == "cost":
            with torch.no_grad():
                y = self.generated(len(x), None)
            divergence = self.divergence(self.features(y), self.features(x))
            return Loss(-divergence, {"divergence": divergence.detach()})
        features = held_constant(self.features)
        with torch.no_grad():
            h = features(x)
        divergence = self.divergence(features(self.generated(len(x), None)), h)
        return Loss(divergence, {"divergence": divergence.detach()})

    def divergence(self, y: Tensor, x: Tensor) -> Tensor:
        """Sinkhorn divergence of two batches (B, F): (), with gradients to both where they have a graph."""
        own = squared_costs(x, x)
        epsilon, steps = self.config.epsilon_share * own.detach().mean(), self.config.sinkhorn_steps
        across = entropic_cost(squared_costs(y, x), epsilon=epsilon, max_steps=steps)
        own_y = own_entropic_cost(squared_costs(y, y), epsilon=epsilon, max_steps=steps)
        return across - 0.5 * (own_y + own_entropic_cost(own, epsilon=epsilon, max_steps=steps))

    @torch.no_grad()
    def clip_features(self) -> None:
        """Bring every weight of h to [-clip, clip], in place."""
        weights = tuple(self.features.parameters())
        torch._foreach_clamp_min_(weights, -self.config.clip)
        torch._foreach_clamp_max_(weights, self.config.clip)
