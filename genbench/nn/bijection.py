"""Invertible maps that know how they change volumes, and chains of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genbench.nn.actnorm import ActNorm


class Bijection(nn.Module, ABC):
    """y = f(x) with its inverse, and log |det dy/dx| of each example."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image of (B, ...), and the log-determinants: (B,), or () where all examples have the same."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """The `x` whose image is `y`; carries no gradient unless a subclass says so."""

    def initialise(self, x: Tensor) -> Tensor:
        """Set what starts from data by the batch `x`; the image of the batch after that."""
        y: Tensor = self(x)[0]
        return y


class Chain(Bijection):
    """One map after another; without any, the identity.

    Args:
        parts: the first is the first of `forward`.
    """

    def __init__(self, *parts: Bijection) -> None:
        super().__init__()
        self.parts = cast("Sequence[Bijection]", nn.ModuleList(parts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the sum of the log-determinants (B,)."""
        total = x.new_zeros(len(x))
        for part in self.parts:
            x, log_det = part(x)
            total = total + log_det
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        """The inverses in the other order."""
        for part in reversed(self.parts):
            y = part.inverse(y)
        return y

    def initialise(self, x: Tensor) -> Tensor:
        """Each part by what the parts before it make of the batch."""
        for part in self.parts:
            x = part.initialise(x)
        return x


class Normalise(Bijection):
    """`ActNorm` as a part of a chain.

    Args:
        num_channels: size of axis 1.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.norm = ActNorm(num_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) to the same shape, and the log-determinant ()."""
        y, log_det = self.norm(x)
        return y, log_det

    def inverse(self, y: Tensor) -> Tensor:
        """Carries gradients."""
        return self.norm.inverse(y)

    def initialise(self, x: Tensor) -> Tensor:
        """Mean 0 and variance 1 of every channel of the batch."""
        self.norm.initialise(x)
        y: Tensor = self.norm(x)[0]
        return y


class Reorder(Bijection):
    """A fixed order of axis 1: y_i = x_{order_i}.

    Args:
        order: (C,) int64, each of 0 .. C-1 once.
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) to the same shape, and 0."""
        return x[:, self.order], x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        """Carries gradients."""
        return y[:, self.back]


class Reverse(Bijection):
    """Axis 1 from its end to its start."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) to the same shape, and 0."""
        return x.flip(1), x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        """Carries gradients."""
        return y.flip(1)


class Flatten(Bijection):
    """(B, *shape) as (B, D).

    Args:
        shape: of one example.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D), and 0."""
        return x.reshape(len(x), math.prod(self.shape)), x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        """Carries gradients."""
        return y.reshape(len(y), *self.shape)


def even_then_odd(num: int) -> Tensor:
    """0, 2, 4, ... and then 1, 3, 5, ... below `num`: (num,) int64."""
    return torch.cat([torch.arange(0, num, 2), torch.arange(1, num, 2)])
