"""Invertible maps of single numbers, with parameters that a network computes: what couplings and their kin apply.

Legend: `x` one number, `y` its image, `raw` the parameters along axis 1, `s` log-scale, `t` shift.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn import functional as F

LOG_REACH = 5.0
"""Bound on the logarithms of conditional deviations."""


class ElementwiseMap(ABC):
    """y = f(x; raw), rising in x."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """P, the length of axis 1 of `raw`."""

    @abstractmethod
    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Images and log dy/dx of (B, ...) with parameters (B, P, ...): the shape of `x` each."""

    @abstractmethod
    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """The numbers whose images are `y`: its shape."""


@dataclasses.dataclass(frozen=True)
class Additive(ElementwiseMap):
    """y = x + t (Dinh et al. 2014, arXiv:1410.8516, Sec. 3.2): volumes stay as they are."""

    @property
    def num_parameters(self) -> int:
        """One, t."""
        return 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and 0 everywhere."""
        return x + raw[:, 0], x.new_zeros(()).expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """The number y - t."""
        return y - raw[:, 0]


@dataclasses.dataclass(frozen=True)
class Standardise(ElementwiseMap):
    """y = (x - t) exp(-s) (Papamakarios et al. 2017, arXiv:1705.07057, Sec. 3.1): x is N(t, exp(s)^2), y N(0, 1).

    s = 5 tanh(raw / 5): deviations stay within 1/148 and 148, and a stack of maps within the range of floats.
    """

    @property
    def num_parameters(self) -> int:
        """Of s and t."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and -s."""
        s = self.log_deviation(raw)
        return (x - raw[:, 1]) * (-s).exp(), -s

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """The number y exp(s) + t."""
        return y * self.log_deviation(raw).exp() + raw[:, 1]

    @staticmethod
    def log_deviation(raw: Tensor) -> Tensor:
        """The log-deviation s of parameters (B, 2, ...): (B, ...)."""
        return LOG_REACH * (raw[:, 0] / LOG_REACH).tanh()


@dataclasses.dataclass(frozen=True)
class SigmoidScale(ElementwiseMap):
    """y = (x + t) sigmoid(s + 2), never stretched and at the start nearly kept (authors' code of Glow)."""

    @property
    def num_parameters(self) -> int:
        """Of s and t."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and log sigmoid(s + 2)."""
        log_scale = F.logsigmoid(raw[:, 0] + 2.0)
        return (x + raw[:, 1]) * log_scale.exp(), log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """The number y / sigmoid(s + 2) - t."""
        return y * (-F.logsigmoid(raw[:, 0] + 2.0)).exp() - raw[:, 1]
