"""Convolutions whose weights have a direction and a length apart, started so that outputs of a first batch are normal.

w = g v / |v| for each output (Salimans and Kingma 2016, 1602.07868, Eq. 2): a step turns `v` without making the output
larger. `g` and the bias start where the outputs of a batch, layer after layer, have mean 0 and the wanted standard
deviation (Eq. 5 and 6). Symbols: `I` and `O` inputs and outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIRECTION_STD = 0.05
"""Of the first directions, as in Sec. 3; beside the learning rate it says how fast they turn."""
LEAST_STD = 0.1
"""An output that hardly moves over the first batch is blown up by no more than the inverse."""

Padding = tuple[int, int, int, int]
"""Zeros on the left, on the right, above and below; a negative number cuts."""


class NormalisedLayer(nn.Module, ABC):
    """A layer with weights (O, I, rows, columns) of a length that is learned apart.

    Args:
        shape: of the weights.
        scale: standard deviation of the outputs at the start.
    """

    def __init__(self, shape: tuple[int, int, int, int], *, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.direction = nn.Parameter(DIRECTION_STD * torch.randn(shape))
        self.length = nn.Parameter(torch.full((shape[0],), scale))  # right for independent inputs of variance 1
        self.bias = nn.Parameter(torch.zeros(shape[0]))

    @property
    def weight(self) -> Tensor:
        """(O, I, rows, columns)."""
        norm: Tensor = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3))
        return self.direction * (self.length / norm)[:, None, None, None]

    @abstractmethod
    def mapped(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map (B, I, H, W) by these weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H', W')."""
        return self.mapped(x, self.weight, self.bias)

    def start_from(self, x: Tensor) -> None:
        """Set length and bias by the inputs (B, I, H, W) of a first batch."""
        self.length.data.fill_(self.scale)
        self.bias.data.zero_()
        outputs = self.mapped(x, self.weight, self.bias)  # not by a call, which is what brought us here
        std, mean = torch.std_mean(outputs.double(), dim=(0, 2, 3), correction=0)
        factor = self.scale / torch.hypot(std, torch.full_like(std, self.scale * LEAST_STD))
        self.length.data.mul_(factor)
        self.bias.data.copy_(-mean * factor)


class NormalisedConv2d(NormalisedLayer):
    """A convolution.

    Args:
        num_inputs: I.
        num_outputs: O.
        kernel: rows and columns.
        padding: of the inputs.
        stride: of the outputs, in both directions.
        scale: standard deviation of the outputs at the start.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        padding: Padding = (0, 0, 0, 0),
        stride: int = 1,
        scale: float = 1.0,
    ) -> None:
        super().__init__((num_outputs, num_inputs, *kernel), scale=scale)
        self.padding, self.stride = padding, stride

    def mapped(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Pad and convolve."""
        inputs = F.pad(x, self.padding) if any(self.padding) else x
        return F.conv2d(inputs, weight, bias, self.stride)


class NormalisedUpsampling2d(NormalisedLayer):
    """A transposed convolution of stride 2: an input reaches two rows and, about its own two, 2 or 3 columns.

    Args:
        width: I and O.
        columns: 2 or 3.
    """

    def __init__(self, width: int, *, columns: int) -> None:
        super().__init__((width, width, 2, columns), scale=1.0)
        self.columns = columns

    def mapped(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, O, 2H, 2W)."""
        wide = F.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2)
        first = self.columns - 2  # of 3 columns the first lies left of the input's own two
        return wide[:, :, :, first : first + 2 * x.shape[3]]


@torch.no_grad()
def start_from(network: nn.Module, *inputs: Tensor) -> None:
    """Start every normalised layer of a network at what reaches it from a batch, in the order of its own pass."""

    def start(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        cast("NormalisedLayer", layer).start_from(*args)

    layers = [layer for layer in network.modules() if isinstance(layer, NormalisedLayer)]
    hooks = [layer.register_forward_pre_hook(start) for layer in layers]
    network(*inputs)
    for hook in hooks:
        hook.remove()
