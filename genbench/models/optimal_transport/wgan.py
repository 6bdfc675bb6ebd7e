"""Generative adversarial network that descends the Wasserstein-1 distance, with clipped weights.

Wasserstein GAN. Martin Arjovsky, Soumith Chintala, Leon Bottou, 2017. arXiv:1701.07875

The divergences of earlier adversaries do not change as two laws without common support move towards each other; the
earth mover's distance does. By Kantorovich-Rubinstein duality it is a supremum over critics of slope at most one, and
weights in a box hold the slope below some constant, whatever it is: the distance is found up to that factor.

Legend: `x` real data, `z` ~ N(0, I) latent, `g` generator, `f` critic, `c` clip:

    critic     minimise  E f(g(z)) - E f(x),    then every weight to [-c, c]       (Algorithm 1, lines 5-7)
    generator  minimise  -E f(g(z))                                                (Algorithm 1, line 10)

Clipping is kept for the record: the authors call it a terrible way to bound a slope (Sec. 3). Critics learn very simple
functions, as most weights end at the clip; `wgan_gp` is what came after.

**Departures**
- The paper's RMSProp is Adam without momentum, which corrects its start.
- Weights are clipped before each use of the critic, not after each of its steps: in between nothing reads them.
- The networks are those of `wgan_gp`, without the critic's batch normalisation, which would tie the examples together;
  `paper` has the residual ones in place of DCGAN's. Samples come from an average of the generator's weights.
- `smoke`, `small` and `vector` clip wider and learn faster, with fewer turns of the critic, for a thousand steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share
from genbench.models._latent_generator import LatentGenerator, held_constant

BETAS = (0.0, 0.99)
"""RMSProp's average of squares, in PyTorch's default."""


@register_model("wgan")
class WGAN(LatentGenerator):
    """Wasserstein GAN with clipped weights; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        networks: Literal["residual", "strided"] = "residual"
        """Of images; vectors have MLPs."""
        latent_dim: Count = 100
        channels: Count = 128
        """Width of the generator at its largest grid."""
        critic_channels: Count = 128
        """Width of the critic at its largest grid."""
        vector_width: Count = 128
        """Of the layers of both MLPs."""
        clip: Positive = 0.01
        """c."""
        critic_turns: Count = 5
        """Steps of the critic for each one of the generator (n_critic)."""
        lr: Positive = 5e-5
        final_lr_share: Share = 1.0
        ema_decay: Fraction = 0.999
        """Of the generator's weights."""
        batch_size: Count = 64

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            networks="strided",
            latent_dim=32,
            channels=48,
            critic_channels=24,
            clip=0.05,
            critic_turns=2,
            lr=5e-4,
            final_lr_share=0.1,
            ema_decay=0.98,
        ),
        "small": Config(
            networks="strided",
            latent_dim=64,
            channels=64,
            critic_channels=32,
            clip=0.05,
            critic_turns=3,
            lr=5e-4,
            final_lr_share=0.1,
            ema_decay=0.99,
            batch_size=32,
        ),
        "vector": Config(latent_dim=2, clip=0.1, lr=5e-4, final_lr_share=0.1, ema_decay=0.99, batch_size=256),
        "paper": Config(),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.config = config
        self.critic = self.make_critic()

    def phases(self) -> tuple[Phase, ...]:
        """One phase: several turns of the critic, then one of the generator."""
        config = self.config
        critic = Player(
            name="critic",
            modules=(self.critic,),
            lr=config.lr,
            betas=BETAS,
            turns=config.critic_turns,
            final_lr_share=config.final_lr_share,
        )
        generator = dataclasses.replace(
            critic, name="generator", modules=(self.generator,), turns=1, ema_decay=config.ema_decay
        )
        return (Phase(name="adversarial", share=1.0, players=(critic, generator), batch_size=config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `critic` or of `generator`; the latter takes from the batch only its size."""
        self.clip_critic()
        if player == "critic":
            return self._critic_loss(self.on_scale(batch.x))
        score = held_constant(self.critic)(self.generated(len(batch), None)).mean()
        return Loss(-score, {"score": score.detach()})

    @torch.no_grad()
    def clip_critic(self) -> None:
        """Bring every weight of the critic to [-c, c], in place."""
        weights = tuple(self.critic.parameters())
        torch._foreach_clamp_min_(weights, -self.config.clip)
        torch._foreach_clamp_max_(weights, self.config.clip)

    def _critic_loss(self, x: Tensor) -> Loss:
        with torch.no_grad():
            x_tilde = self.generated(len(x), None)
        real, fake = self.critic(torch.cat([x, x_tilde])).chunk(2)
        distance = real.mean() - fake.mean()
        return Loss(-distance, {"distance": distance.detach()})
