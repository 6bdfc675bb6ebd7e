"""The network of energy-based models: convolutions for images, an MLP for vectors."""

from __future__ import annotations

from typing import Protocol

from genbench.core.dataset import DataSpec
from genbench.models._data_kinds import takes_images
from genbench.nn.energy_net import EnergyMLP, EnergyNet


class NetworkSettings(Protocol):
    """What a paper's `Config` must hold of its network; the meaning of each is said there."""

    @property
    def channels(self) -> int:
        """Width at the largest grid."""

    @property
    def max_channels(self) -> int:
        """Width of any grid."""

    @property
    def fold(self) -> int:
        """Side of the pixel blocks folded into channels."""

    @property
    def vector_width(self) -> int:
        """Of the layers of the MLP."""

    @property
    def vector_layers(self) -> int:
        """Hidden layers of the MLP."""


def conv_or_mlp(
    spec: DataSpec, config: NetworkSettings, *, owner: str, num_outputs: int = 1, bias: bool = True
) -> EnergyNet | EnergyMLP:
    """A convolutional network for images of integers, an MLP for vectors of floats: (B, ...) to (B, num_outputs).

    Args:
        spec: of the data.
        config: sizes.
        owner: name of the model, for messages.
        num_outputs: of each example.
        bias: of the last layer; a constant of one energy is seen by no difference of energies.

    Raises:
        SettingError: the data are neither.
    """
    if not takes_images(spec, owner=owner):
        width, num_layers = config.vector_width, config.vector_layers
        return EnergyMLP(spec.num_dims, width=width, num_layers=num_layers, num_outputs=num_outputs, bias=bias)
    return EnergyNet(
        spec.shape,
        channels=config.channels,
        max_channels=config.max_channels,
        fold=config.fold,
        num_outputs=num_outputs,
        bias=bias,
    )
