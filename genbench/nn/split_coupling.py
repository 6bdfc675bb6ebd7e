"""Coupling of two halves: one passes and says what happens to the other.

Dinh, Krueger, Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genbench.nn.bijection import Bijection
from genbench.nn.elementwise_maps import ElementwiseMap


class SplitCoupling(Bijection):
    """Axis 1 of (B, C, ...) in two halves, the first the larger where C is odd.

    Args:
        num_channels: C.
        elementwise: what happens to each number of the half that changes.
        make_conditioner: from the channels that pass and the number of parameters to the network between them,
            (B, C1, ...) to (B, P * C2, ...).
        parity: 0 lets the first half pass, 1 the second.

    Raises:
        ValueError: there is only one channel.
    """

    def __init__(
        self,
        num_channels: int,
        elementwise: ElementwiseMap,
        make_conditioner: Callable[[int, int], nn.Module],
        *,
        parity: int = 0,
    ) -> None:
        super().__init__()
        if num_channels < 2:
            raise ValueError(f"a coupling needs at least 2 channels, found {num_channels}")
        self.elementwise, self.parity = elementwise, parity
        self.sizes = (num_channels - num_channels // 2, num_channels // 2)
        passes, self.changes = self.sizes if parity == 0 else self.sizes[::-1]
        self.conditioner = make_conditioner(passes, elementwise.num_parameters * self.changes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) to the same shape, and log-determinants (B,)."""
        passing, other = self._halves(x)
        other, log_slope = self.elementwise.forward(other, self._parameters_for(passing))
        return self._joined(passing, other), log_slope.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Costs what `forward` costs; carries gradients."""
        passing, other = self._halves(y)
        return self._joined(passing, self.elementwise.inverse(other, self._parameters_for(passing)))

    def _parameters_for(self, passing: Tensor) -> Tensor:
        raw: Tensor = self.conditioner(passing).unflatten(1, (self.elementwise.num_parameters, self.changes))
        return raw.to(passing)  # a network may run in half precision, the map may not

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, dim=1)
        return (first, second) if self.parity == 0 else (second, first)

    def _joined(self, passing: Tensor, other: Tensor) -> Tensor:
        return torch.cat([passing, other] if self.parity == 0 else [other, passing], dim=1)
