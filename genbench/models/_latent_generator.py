"""What generators share that map noise to data in one pass against a distance: networks and sampling.

Images of integers are scaled to [-1, 1]; vectors of floats are as they are and have MLPs in place of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.model import GenerativeModel
from genbench.models._data_kinds import takes_images
from genbench.nn.gan_networks import CRITICS, GENERATORS
from genbench.prob.pixels import to_signed, to_uint8


class Settings(Protocol):
    """What a paper's `Config` must hold; the meaning of each is said there."""

    @property
    def networks(self) -> Literal["residual", "strided"]:
        """Of images."""

    @property
    def latent_dim(self) -> int:
        """Length of the noise."""

    @property
    def channels(self) -> int:
        """Width of the generator."""

    @property
    def critic_channels(self) -> int:
        """Width of what is trained against it."""

    @property
    def vector_width(self) -> int:
        """Of the layers of both, for vectors."""


class OnePass(GenerativeModel):
    """One pass of a `generator` from noise (N, latent_dim) to data; a subclass has the networks and the distance.

    Args:
        spec: of the data.
        latent_dim: length of the noise.
    """

    generator: nn.Module

    def __init__(self, spec: DataSpec, *, latent_dim: int) -> None:
        super().__init__(spec)
        self.levels, self.latent_dim = spec.levels, latent_dim

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw by one pass of the generator: (N, C, H, W), uint8, or vectors (N, D)."""
        with torch.no_grad():
            x = self.generated(num_samples, generator)
        return x if self.levels is None else to_uint8(x, self.levels)

    def generated(self, num_samples: int, generator: Generator | None) -> Tensor:
        """Data on the scale of the model, with their graph: (N, ...); None draws from the global stream."""
        device = next(self.generator.parameters()).device
        z = torch.randn(num_samples, self.latent_dim, generator=generator, device=device)
        x: Tensor = self.generator(z)
        return x

    def on_scale(self, x: Tensor) -> Tensor:
        """Data of a batch as the generator draws them: (B, ...)."""
        return x if self.levels is None else to_signed(x, self.levels)


class LatentGenerator(OnePass):
    """One pass through one of the usual networks; a subclass has the distance.

    Args:
        spec: of images of integers, or of vectors of floats.
        config: settings of the model.

    Raises:
        SettingError: the data are neither.
    """

    takes = ("image", "vector")

    def __init__(self, spec: DataSpec, config: Settings) -> None:
        super().__init__(spec, latent_dim=config.latent_dim)
        images = takes_images(spec, owner=type(self).__module__.rpartition(".")[2])
        self._networks = config.networks if images else "mlp"
        self._widths = (config.channels, config.critic_channels) if images else (config.vector_width,) * 2
        make = GENERATORS[self._networks]
        self.generator = make(spec.shape, latent_dim=config.latent_dim, channels=self._widths[0])

    def make_critic(self, *, num_outputs: int = 1) -> nn.Module:
        """A new network of data (B, ...) to (B,), or (B, num_outputs) of several."""
        return CRITICS[self._networks](self.spec.shape, channels=self._widths[1], num_outputs=num_outputs)


def held_constant(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network with its weights as constants: gradients pass through it and stay out of it."""
    constants = {name: weight.detach() for name, weight in network.named_parameters()}

    def call(x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(network, constants, (x,))
        return out

    return call
