"""What models of noised data share: a network for images or for vectors, and factors shaped to go with either."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from genbench.core.dataset import DataSpec
from genbench.nn.time_mlp import TimeMLP
from genbench.nn.unet import UNet


class NetworkSettings(Protocol):
    """What a paper's `Config` must hold of its network; the meaning of each is said there."""

    @property
    def width(self) -> int:
        """Channels of the first level of the U-Net."""

    @property
    def multipliers(self) -> tuple[int, ...]:
        """Channels of each level as multiples of it."""

    @property
    def num_blocks(self) -> int:
        """Residual blocks per level."""

    @property
    def attention_resolution(self) -> int:
        """The first level of maps at most this large attends."""

    @property
    def num_heads(self) -> int:
        """Of each attention."""

    @property
    def dropout(self) -> float:
        """Share of features dropped."""

    @property
    def patch(self) -> int:
        """Side of the squares of pixels stacked into channels."""

    @property
    def vector_width(self) -> int:
        """Of the layers of the MLP."""

    @property
    def vector_blocks(self) -> int:
        """Residual blocks of the MLP."""


def unet_or_mlp(spec: DataSpec, config: NetworkSettings, *, owner: str, features: int = 1) -> UNet | TimeMLP:
    """A U-Net for images of integers, a residual MLP for vectors of floats; both are called alike.

    Args:
        spec: of the data.
        config: sizes.
        owner: name of the model, for messages.
        features: inputs for each dimension of the data.

    Raises:
        ValueError: the data are neither.
    """
    if spec.kind == "vector" and spec.levels is None:
        D = spec.num_dims
        return TimeMLP(D * features, D, width=config.vector_width, num_blocks=config.vector_blocks)
    if spec.kind != "image" or spec.levels is None:
        raise ValueError(f"`{owner}` models images of integers and vectors of floats, found data of kind `{spec.kind}`")
    return UNet(
        spec.shape[0] * features,
        spec.shape[0],
        resolution=spec.shape[1],
        width=config.width,
        multipliers=config.multipliers,
        num_blocks=config.num_blocks,
        attention_resolution=config.attention_resolution,
        num_heads=config.num_heads,
        dropout=config.dropout,
        patch=config.patch,
    )


def over(values: Tensor, x: Tensor) -> Tensor:
    """One value for each example, shaped to go with `x`: (B,) to (B, 1, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))
