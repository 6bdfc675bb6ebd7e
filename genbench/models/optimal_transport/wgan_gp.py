"""Generative adversarial network that descends the Wasserstein-1 distance, with a gradient penalty.

Title: Improved Training of Wasserstein GANs. Authors: Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville. Year: 2017.
arXiv: 1704.00028; the distance and the game are those of Arjovsky, Chintala, Bottou 2017 (1701.07875).

Idea: by Kantorovich-Rubinstein duality W_1(p, q) is the supremum of E_p f - E_q f over 1-Lipschitz f, so a critic f
that is trained often gives the generator a distance with useful gradients. A penalty on the norm of the critic's
gradient between real and generated images keeps it near 1-Lipschitz without clipping weights.

Legend: x real image, x_tilde = g(z) generated image, z ~ N(0, I) latent, f critic, g generator,
lambda weight of the penalty.

    critic     minimise  E f(x_tilde) - E f(x) + lambda E (|grad f(x_hat)| - 1)^2      Algorithm 1, line 7
    generator  minimise  -E f(g(z))                                                    Algorithm 1, line 12

`penalty=one_sided` has max(0, |grad f| - 1)^2 in its place: slopes below one are let be (Sec. 4, two-sided penalty).

Departures: the learning rate falls along a cosine, not a line. Samples come from an exponential average of the
generator's weights. Grids start from the side that halving leaves between 4 and 7 (7 for 28 pixels); the critic halves
once less often than the generator doubles, but at least once, which is the paper's residual network at 32 pixels.
`smoke` and `small` use strided convolutions in the manner of DCGAN (the paper's other networks) on blocks of 2 x 2
pixels folded into channels, with fewer turns of the critic and a larger learning rate (and in `small` a smaller
batch), which a CPU can afford; their generator's batch is as large as the critic's, not twice. Vectors have MLPs, as
the paper's points in the plane (Sec. 4), with the authors' weight of the penalty there, narrower and learned faster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share
from genbench.models._latent_generator import LatentGenerator, held_constant
from genbench.prob.gradient_penalty import gradient_penalty, one_sided_gradient_penalty

BETAS = (0.0, 0.9)
"""Adam without momentum (Algorithm 1)."""
PENALTIES = {"two_sided": gradient_penalty, "one_sided": one_sided_gradient_penalty}


@register_model("wgan_gp")
class WGANGP(LatentGenerator):
    """Wasserstein GAN with gradient penalty; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        networks: Literal["residual", "strided"] = "residual"
        """Of images; vectors have MLPs."""
        latent_dim: Count = 128
        channels: Count = 128
        """Width of the generator at its largest grid."""
        critic_channels: Count = 128
        """Width of the critic at its largest grid."""
        vector_width: Count = 512
        """Of the layers of both MLPs."""
        penalty: Literal["two_sided", "one_sided"] = "two_sided"
        """Whether slopes below one are penalised."""
        penalty_weight: NonNegative = 10.0
        """lambda (Algorithm 1)."""
        critic_turns: Count = 5
        """Steps of the critic for each one of the generator (n_critic of Algorithm 1)."""
        generator_batches: Count = 2
        """Batches of generated images in a step of the generator (appendix F)."""
        lr: Positive = 2e-4
        final_lr_share: Share = 0.0
        ema_decay: Fraction = 0.999
        """Of the generator's weights."""
        batch_size: Count = 64

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            networks="strided",
            latent_dim=32,
            channels=48,
            critic_channels=24,
            critic_turns=2,
            generator_batches=1,
            lr=1e-3,
            ema_decay=0.98,
        ),
        "small": Config(
            networks="strided",
            latent_dim=64,
            channels=64,
            critic_channels=32,
            critic_turns=3,
            generator_batches=1,
            lr=1e-3,
            ema_decay=0.99,
            batch_size=32,
        ),
        "vector": Config(
            latent_dim=2,
            vector_width=128,
            penalty_weight=0.1,
            generator_batches=1,
            lr=1e-3,
            ema_decay=0.99,
            batch_size=256,
        ),
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
        if player == "critic":
            return self._critic_loss(self.on_scale(batch.x))
        x_tilde = self.generated(self.config.generator_batches * len(batch), None)
        score = held_constant(self.critic)(x_tilde).mean()
        return Loss(-score, {"score": score.detach()})

    def _critic_loss(self, x: Tensor) -> Loss:
        with torch.no_grad():
            x_tilde = self.generated(len(x), None)
        # Real and generated images share a pass: nothing in the critic couples the examples of a batch.
        real, fake = self.critic(torch.cat([x, x_tilde])).chunk(2)
        distance = real.mean() - fake.mean()
        penalty = PENALTIES[self.config.penalty](self.critic, x, x_tilde)
        total = self.config.penalty_weight * penalty - distance
        return Loss(total, {"distance": distance.detach(), "penalty": penalty.detach()})
