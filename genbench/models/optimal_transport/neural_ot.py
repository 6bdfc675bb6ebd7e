"""Optimal transport map from noise, or from one part of the data to another, as the saddle of two networks.

Neural Optimal Transport. Alexander Korotin, Daniil Selikhanovych, Evgeny Burnaev, 2023. arXiv:2201.12220

Wasserstein adversaries use a distance as a loss and throw its transport away. Here transport is the generator: of all
maps that take the source to the data, the one that moves points least. It is found by a potential that prices places,
and a map that takes each point where cost less price is least.

Legend: `x` ~ P source, `y` ~ Q data, `T` map, `f` potential, `c(x, y) = |x - y|^2 / (2 D)` with D dimensions:

    sup_f inf_T  E_Q f(y) + E_P [c(x, T(x)) - f(T(x))]      (the strong cost)
    map          minimise  E_P [c(x, T(x)) - f(T(x))], several turns                    (Algorithm 1)
    potential    minimise  E_P f(T(x)) - E_Q f(y)

The value at the saddle is the transport cost W_2^2 / (2 D). At the saddle T is an optimal map, though not every T of a
saddle is. `source=classes` takes the examples of the first half of the classes to those of the second, a map between
two data sets: `transport` applies it to any example. `source=noise` is N(0, I) of the shape of vectors; of images it
is coarse noise, N(0, I) of a few positions a side, and a point of the source its bicubic enlargement (Rout, Korotin,
Burnaev 2022, arXiv:2110.02999, who have 8 x 8 of 32 x 32): a map from noise as fine as the pixels would spend all its
training on taking that noise away.

**Departures**
- The weak costs of the paper, whose map has noise of its own and spreads one point over many, are left out.
- Between data sets, and for vectors, the map adds what its network says to the point that it is given, so that it
  starts as the identity: the U-Net of `ddpm`, told no time, or an MLP of three hidden layers, as the authors have for
  points in the plane. From coarse noise it is a generator of `wgan_gp`. The potential is a critic of `wgan_gp`, or a
  like MLP. Samples come from an average of the map's weights.
- The cost is a mean over dimensions, as in the authors' code: it scales f and nothing else.
- `paper` has their width, rate and turns for a strong cost, with Adam without momentum and no decay of weights.
- `smoke`, `small` and `vector` have fewer turns of the map, learn faster and slow down along a cosine, for a thousand
  rounds.

The map to a law of several modes that do not touch has jumps, which a network smooths: a share of the samples lies on
bridges between neighbours, the less the longer the training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import GenerativeModel, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._data_kinds import takes_images
from genbench.models._latent_generator import held_constant
from genbench.nn.gan_networks import CRITICS, GENERATORS, VectorGenerator
from genbench.nn.unet import UNet
from genbench.prob.pixels import to_signed, to_uint8

BETAS = (0.0, 0.9)
"""Adam without momentum, as in `wgan_gp`; the authors have the usual 0.9 and 0.999."""
POOL_SIZE = 1024
"""Source examples that are kept with the weights, to be sampled from."""


@register_model("neural_ot")
class NeuralOT(GenerativeModel):
    """A transport map and its potential; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training of both players."""

        source: Literal["noise", "classes"] = "noise"
        """What is transported: noise, or the examples of the first half of the classes."""
        width: Count = 32
        """Channels of the first level of the map's U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: Count = 1
        """Residual blocks per level."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels."""
        vector_width: Count = 64
        """Of the layers of both MLPs, for vectors."""
        networks: Literal["residual", "strided"] = "strided"
        """Of the potential, and of the map from noise, for images."""
        noise_side: Count = 4
        """Of the grid of noise that is enlarged to a picture."""
        channels: Count = 64
        """Width of the map from noise at its largest grid."""
        critic_channels: Count = 32
        """Width of the potential at its largest grid."""
        map_turns: Count = 3
        """Steps of the map for each one of the potential (K_T)."""
        lr: Positive = 1e-3
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.99
        """Of the map's weights."""
        batch_size: Count = 64

    takes = ("image", "vector")
    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(width=16, patch=1, channels=48, critic_channels=24),
        "small": Config(),
        "vector": Config(final_lr_share=0.05, batch_size=256),
        "paper": Config(
            width=48,
            multipliers=(1, 2, 4, 8),
            num_blocks=2,
            patch=1,
            networks="residual",
            noise_side=8,
            channels=128,
            critic_channels=128,
            map_turns=10,
            lr=1e-4,
            final_lr_share=1.0,
            ema_decay=0.999,
        ),
    }
    pool: Tensor
    filled: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if config.source == "classes" and spec.num_classes < 2:
            raise SettingError(
                f"`neural_ot` transports between classes, the data have {spec.num_classes}",
                hint="source=noise is for any data",
            )
        self.config, self.levels = config, spec.levels
        images = takes_images(spec, owner="neural_ot")
        networks = config.networks if images else "mlp"
        self.potential = CRITICS[networks](
            spec.shape, channels=config.critic_channels if images else config.vector_width
        )
        self.source_shape = spec.shape
        if images and config.source == "noise":
            self.source_shape = (spec.shape[0], config.noise_side, config.noise_side)
            self.mover: nn.Module = FromCoarse(spec, self.source_shape, config)
        else:
            self.mover = Shift(spec, config)
        size = POOL_SIZE if config.source == "classes" else 0
        self.register_buffer("pool", torch.zeros(size, *spec.shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._kept = 0  # the same number where no device must be asked for it

    def phases(self) -> tuple[Phase, ...]:
        """One phase: several turns of the map, then one of the potential."""
        config = self.config
        mover = Player(
            name="map",
            modules=(self.mover,),
            lr=config.lr,
            betas=BETAS,
            turns=config.map_turns,
            final_lr_share=config.final_lr_share,
            ema_decay=config.ema_decay,
        )
        pricer = dataclasses.replace(mover, name="potential", modules=(self.potential,), turns=1, ema_decay=None)
        return (Phase(name="saddle", share=1.0, players=(mover, pricer), batch_size=config.batch_size),)

    def map(self, x: Tensor) -> Tensor:
        """T of the source (B, *source_shape), on the scale of the model: (B, *shape)."""
        moved: Tensor = self.mover(x)
        return moved

    def placed(self, x: Tensor) -> Tensor:
        """The points that the source stands for, from which the cost counts: coarse noise enlarged, all else as is."""
        if x.shape[1:] == self.spec.shape:
            return x
        return F.interpolate(x, size=self.spec.shape[1:], mode="bicubic")

    def loss(self, batch: Batch, player: str) -> Loss:
        """Cost less price of where the map goes, for `map`; prices there less prices of data, for `potential`.

        Raises:
            SettingError: classes are transported, and the batch has none.
        """
        y = batch.x if self.levels is None else to_signed(batch.x, self.levels)
        x, of_source, of_data = self._ends(y, batch.y)
        if player == "map":
            moved = self.map(x)
            cost = (of_source * (0.5 * (self.placed(x) - moved).square().flatten(1).mean(1))).sum()
            price = (of_source * held_constant(self.potential)(moved)).sum()
            return Loss(cost - price, {"cost": cost.detach(), "price": price.detach()})
        with torch.no_grad():
            moved = self.map(x)
        there, data = self.potential(torch.cat([moved, y])).chunk(2)
        gap = (of_source * there - of_data * data).sum()
        return Loss(gap, {"gap": gap.detach()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Transport draws of the source: (N, C, H, W), uint8, or vectors (N, D); of `classes`, kept examples.

        Raises:
            RuntimeError: classes are transported, and the model was never trained.
        """
        if self.config.source == "noise":
            x = torch.randn(num_samples, *self.source_shape, generator=generator, device=self.pool.device)
        else:
            if not int(self.filled):
                raise RuntimeError("there is nothing to transport: the model was never trained")
            x = self.pool[torch.randint(int(self.filled), (num_samples,), generator=generator, device=self.pool.device)]
        return self._as_data(self.map(x))

    @torch.no_grad()
    def transport(self, x: Tensor) -> Tensor:
        """Where the map takes examples of the source: vectors or images as stored, or coarse noise as it is.

        Args:
            x: (B, D) float, (B, C, H, W) integers, or of `source=noise` for images (B, C, side, side) float.
        """
        return self._as_data(self.map(x if x.is_floating_point() else to_signed(x, self.spec.levels or 0)))

    def _as_data(self, x: Tensor) -> Tensor:
        return x if self.levels is None else to_uint8(x, self.levels)

    def _ends(self, y: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Source points (B, ...), and the shares (B,) of source and data that each row has in the means of the loss.

        Where classes are transported both ends are the batch, and rows of the other end have no share.
        """
        if self.config.source == "noise":
            even = y.new_full((len(y),), 1.0 / len(y))
            return torch.randn(len(y), *self.source_shape, dtype=y.dtype, device=y.device), even, even
        if labels is None:
            raise SettingError("the examples have no class to transport between")
        first = labels < self.spec.num_classes // 2
        if self.training and self._kept < POOL_SIZE:
            self._keep(y[first])
        source, data = first.to(y.dtype), (~first).to(y.dtype)
        return y, source / source.sum().clamp(min=1.0), data / data.sum().clamp(min=1.0)

    @torch.no_grad()
    def _keep(self, x: Tensor) -> None:
        taken = x[: POOL_SIZE - self._kept]
        self.pool[self._kept : self._kept + len(taken)] = taken
        self._kept += len(taken)
        self.filled.fill_(self._kept)


class Shift(nn.Module):
    """x and what a network says of it, nothing at its start."""

    def __init__(self, spec: DataSpec, config: NeuralOT.Config) -> None:
        super().__init__()
        self.timed = spec.kind == "image"
        if self.timed:
            self.network: nn.Module = _unet(spec, config)
        else:
            layers = VectorGenerator(spec.shape, latent_dim=spec.num_dims, channels=config.vector_width)
            for parameter in layers[-1].parameters():
                nn.init.zeros_(parameter)
            self.network = layers

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) to the same shape; a U-Net is told time 0."""
        change: Tensor = self.network(x, x.new_zeros(len(x))) if self.timed else self.network(x)
        return x + change


class FromCoarse(nn.Module):
    """Pictures from coarse noise, by a generator."""

    def __init__(self, spec: DataSpec, source_shape: tuple[int, ...], config: NeuralOT.Config) -> None:
        super().__init__()
        make = GENERATORS[config.networks]
        self.network = make(spec.shape, latent_dim=math.prod(source_shape), channels=config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, side, side) to (B, C, H, W) in [-1, 1]."""
        pictures: Tensor = self.network(x.flatten(1))
        return pictures


def _unet(spec: DataSpec, config: NeuralOT.Config) -> UNet:
    C, side = spec.shape[0], spec.shape[1]
    return UNet(
        C,
        C,
        resolution=side,
        width=config.width,
        multipliers=config.multipliers,
        num_blocks=config.num_blocks,
        attention_resolution=config.attention_resolution,
        num_heads=config.num_heads,
        dropout=config.dropout,
        patch=config.patch,
    )
