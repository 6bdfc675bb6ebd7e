"""A classifier that is an energy-based model at the same time: its logits, unnormalised, are a joint density.

Your Classifier is Secretly an Energy Based Model and You Should Treat it Like One. Will Grathwohl, Kuan-Chieh Wang,
Joern-Henrik Jacobsen, David Duvenaud, Mohammad Norouzi, Kevin Swersky, 2020. arXiv:1912.03263

A softmax over logits does not change when all of them rise together. That freedom is used to make them a density: how
high the logits are says how likely the image is, how they differ says which class it has.

Legend: `f(x)[y]` logits, `x_data, y` labelled data, `x_model` samples, `eps` ~ N(0, I), `beta` energy_weight:

    p(x, y) = exp(f(x)[y]) / Z,    E(x) = -log sum_y exp(f(x)[y]),    p(y | x) = softmax(f(x))        (Sec. 3)
    x_model <- x_model - step_size grad E(x_model) + noise_scale eps, from the replay buffer          (Algorithm 1)
    loss     = -log p(y | x) + E(x_data) - E(x_model) + beta (E(x_data)^2 + E(x_model)^2)

One step of a class is a step down -f(x)[y]: `sample_given` takes chains of p(x | y), `sample` those of p(x).

As in `ebm`, chains have far less noise than their step asks for, images at a low temperature: E orders images, and no
likelihood is reported. The preset `vector` has noise_scale = sqrt(2 step_size), and follows its density.

**Departures**
- The residual network is that of `ebm`, not a Wide-ResNet 28-10. Chains are clamped to where data live, [-1, 1] for
  pixels, which the authors' are not; the other settings of `paper` are those of their training on CIFAR-10.
- beta is not in the paper; a small one keeps short trainings from running off. It is 0 in `paper`.
- Samples start from uniform noise and not from the buffer, on an exponential average of the weights. In `vector` their
  chains are hot at first: f(x)[y] has hills at the examples of other classes too, low ones, which chains do not leave.
- No image is flipped or cropped at random in training, and the learning rate does not fall late in it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import (
    ClassConditional,
    EnergyBased,
    GenerativeModel,
    IterativeSampler,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._energy_network import conv_or_mlp
from genbench.models._replay_buffer import drawn_from
from genbench.prob.contrast import contrast
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.langevin import langevin

IMAGE_LIMITS = (-1.0, 1.0)
"""Chains of images stay where pixels live."""
VECTOR_LIMITS = (-4.0, 4.0)
"""Chains of vectors stay within a few standard deviations of data of unit variance."""
STRETCHES = 25
"""Of a chain of samples, each at one temperature."""
COOLING = 20
"""Stretches over which the temperature falls; the others are at its end."""


@register_model("jem")
class JEM(ClassConditional, GenerativeModel, EnergyBased, IterativeSampler):
    """Joint energy-based model of examples and classes; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Size of the network, the chains of training, and training itself."""

        channels: Count = 24
        """Width of the convolutional network at its largest grid; it doubles with each halving."""
        max_channels: Count = 96
        fold: Count = 2
        """Side of the pixel blocks folded into channels; 1 folds nothing."""
        vector_width: Count = 128
        """Of the layers of the MLP that vectors have in place of the convolutional network."""
        vector_layers: Count = 3
        """Hidden layers of that MLP."""
        buffer_size: Count = 512
        """Chains in the replay buffer."""
        fresh_share: Share = 0.1
        """Share of the chains that start again from uniform noise at each training step (rho)."""
        chain_steps: Count = 12
        chain_step_size: Positive = 30.0
        chain_noise: NonNegative = 0.01
        data_noise: NonNegative = 0.03
        """Standard deviation of the noise on data."""
        energy_weight: NonNegative = 0.1
        """beta."""
        lr: Positive = 1e-3
        warmup_steps: Whole = 0
        final_lr_share: Share = 1.0
        ema_decay: Fraction = 0.99
        batch_size: Count = 64

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """Chains from uniform noise to samples."""

        num_steps: Count
        step_size: Positive
        noise_scale: NonNegative
        first_temperature: Positive = 1.0
        """Temperature of the first steps over that of the last; it falls by equal factors."""

    takes = ("image", "vector")
    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(chain_steps=10, chain_step_size=8.0, ema_decay=0.98),
        "small": Config(),
        "vector": Config(
            buffer_size=2000,
            fresh_share=0.05,
            chain_steps=20,
            chain_step_size=0.005,
            chain_noise=math.sqrt(2 * 0.005),
            data_noise=0.0,
            energy_weight=0.01,
            lr=2e-3,
            final_lr_share=0.02,
            batch_size=256,
        ),
        "paper": Config(
            channels=128,
            max_channels=256,
            fold=1,
            buffer_size=10_000,
            fresh_share=0.05,
            chain_steps=20,
            chain_step_size=1.0,
            chain_noise=0.01,
            energy_weight=0.0,
            lr=1e-4,
            warmup_steps=1000,
            ema_decay=0.999,
        ),
    }
    sampling_presets: ClassVar[Mapping[str, Sampling]] = {
        "smoke": Sampling(num_steps=200, step_size=16.0, noise_scale=0.01),
        "small": Sampling(num_steps=200, step_size=60.0, noise_scale=0.01),
        "vector": Sampling(num_steps=2000, step_size=0.005, noise_scale=math.sqrt(2 * 0.005), first_temperature=10.0),
        "paper": Sampling(num_steps=1000, step_size=1.0, noise_scale=0.01),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.num_classes < 2:
            raise SettingError(
                f"`jem` is a classifier of at least 2 classes, the data have {spec.num_classes}",
                hint="`shapes`, `digits` and `toy2d` have classes; `ebm` needs none",
            )
        self.config, self.levels = config, spec.levels
        self.sampling: JEM.Sampling = self.sampling_presets["small"]
        self.limits = VECTOR_LIMITS if spec.levels is None else IMAGE_LIMITS
        self.net = conv_or_mlp(spec, config, owner="jem", num_outputs=spec.num_classes)
        chains = torch.empty(config.buffer_size, *spec.shape).uniform_(*self.limits)
        # Training alone needs the chains, so they are not part of the weights.
        self.register_buffer("chains", chains, persistent=False)
        self.chains: Tensor

    @property
    def network(self) -> nn.Module:
        """The network of the logits."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """One phase, one player."""
        config = self.config
        player = Player(
            name="energy",
            modules=(self.net,),
            lr=config.lr,
            warmup_steps=config.warmup_steps,
            final_lr_share=config.final_lr_share,
            ema_decay=config.ema_decay,
        )
        return (Phase(name="joint", share=1.0, players=(player,), batch_size=config.batch_size),)

    def logits(self, x: Tensor) -> Tensor:
        """Logits f of points on the scale of the model, [-1, 1] for images: (B, classes)."""
        outputs: Tensor = self.net(x)
        return outputs

    def energy(self, x: Tensor) -> Tensor:
        """-log sum_y exp(f(x)[y]), points as those of `logits`: (B,)."""
        return -torch.logsumexp(self.logits(x), dim=1)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Cross-entropy of the classes, and the contrast of data with negatives from the persistent chains.

        Raises:
            SettingError: the batch has no labels.
        """
        if batch.y is None:
            raise SettingError("the examples have no class to learn from")
        x = batch.x if self.levels is None else to_signed(batch.x, self.levels)
        x_data = x + self.config.data_noise * torch.randn_like(x)
        x_model = self._negatives(len(x))
        logits = self.logits(torch.cat([x_data, x_model]))
        e_data, e_model = (-torch.logsumexp(logits, dim=1)).split([len(x_data), len(x_model)])
        of_data = logits[: len(x_data)]
        cross_entropy = F.cross_entropy(of_data, batch.y)
        squares = e_data.square().mean() + e_model.square().mean()
        total = cross_entropy + contrast(e_data, e_model) + self.config.energy_weight * squares
        parts = {
            "cross_entropy": cross_entropy.detach(),
            "accuracy": (of_data.argmax(1) == batch.y).float().mean(),
            "energy_of_data": e_data.mean().detach(),
            "energy_of_model": e_model.mean().detach(),
        }
        return Loss(total, parts)

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw by Langevin chains of p(x) from uniform noise: (N, C, H, W), uint8, or vectors (N, D)."""
        return self._chains(self.energy, num_samples, generator)

    def sample_given(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """One example for each label (N,) by Langevin chains of p(x | y): as `sample`."""

        def energy(x: Tensor) -> Tensor:
            labels = condition.clone()  # a label made in inference mode cannot be kept for a gradient
            return -self.logits(x).gather(1, labels[:, None]).squeeze(1)

        return self._chains(energy, len(condition), generator)

    def _chains(self, energy: Callable[[Tensor], Tensor], num: int, generator: Generator) -> Tensor:
        how = self.sampling
        noise = torch.rand(num, *self.spec.shape, generator=generator, device=self.chains.device)
        x = self.limits[0] + (self.limits[1] - self.limits[0]) * noise
        for k in range(STRETCHES):
            hot: float = how.first_temperature ** max(0.0, 1.0 - k / COOLING)
            x = langevin(
                energy,
                x,
                num_steps=how.num_steps * (k + 1) // STRETCHES - how.num_steps * k // STRETCHES,
                step_size=how.step_size,
                noise_scale=how.noise_scale * math.sqrt(hot),
                generator=generator,
                limits=self.limits,
            )
        return x if self.levels is None else to_uint8(x, self.levels)

    def _negatives(self, num_chains: int) -> Tensor:
        """Continue some chains of the buffer, each at most once, and store where they came to."""
        config = self.config
        rows, start = drawn_from(self.chains, num_chains, fresh_share=config.fresh_share, fresh=self._uniform)
        x_model = langevin(
            self.energy,
            start,
            num_steps=config.chain_steps,
            step_size=config.chain_step_size,
            noise_scale=config.chain_noise,
            generator=None,
            limits=self.limits,
        )
        self.chains[rows] = x_model
        return x_model

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.empty_like(like).uniform_(*self.limits)
