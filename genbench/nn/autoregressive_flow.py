"""Autoregressive maps: every dimension is mapped by what stands before it, so that the Jacobian is triangular.

Papamakarios, Pavlakou, Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057, Sec. 3.
"""

from __future__ import annotations

from torch import Tensor

from genbench.nn.bijection import Bijection
from genbench.nn.elementwise_maps import ElementwiseMap
from genbench.nn.made import MADE


class Autoregressive(Bijection):
    """y_i = f(x_i; raw_i(x_1 .. x_{i-1})) of vectors (B, D): one pass forwards, dimension after dimension backwards.

    Args:
        num_dims: D.
        elementwise: f.
        width: hidden units of each layer of the network of `raw`.
        num_layers: its hidden layers.
        residual: see `MADE`.
    """

    def __init__(
        self, num_dims: int, elementwise: ElementwiseMap, *, width: int, num_layers: int, residual: bool = False
    ) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.made = MADE(num_dims, elementwise.num_parameters, width=width, num_layers=num_layers, residual=residual)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D), and log-determinants (B,)."""
        y, log_slope = self.elementwise.forward(x, self.made(x).to(x))  # the network may run in half precision
        return y, log_slope.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """D small steps, which together do the work of one pass; carries no gradient."""
        return self.made.one_by_one(len(y), lambda i, raw: self.elementwise.inverse(y[:, i], raw))
