"""Score matching of an energy: its slope is fitted to that of log p, and no partition function is needed.

    exact      E_p 1/2 |grad E + grad log p|^2 = E_p [1/2 |grad E|^2 - tr grad^2 E] + constant      Hyvarinen 2005
    denoising  E 1/2 |eps - sigma grad E(x + sigma eps)|^2,  eps ~ N(0, I)      Vincent 2011, times sigma^2
    sliced     E_p E_v [1/2 |grad E|^2 - v' grad^2 E v],     E v v' = I         Song et al. 2019, arXiv:1905.07088

The denoising form is least where exp(-E) is the law of data with noise, the sliced one where it is that of the data,
which must have a density that is smooth and vanishes at infinity. Every form keeps the graph, to be trained through:
energies must be differentiable twice in x, for the sliced form three times in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
"""(B, ...) to (B,); it treats examples independently."""


def slope_of(energy: Energy, x: Tensor) -> Tensor:
    """Gradient of the energy at each example, with its graph: the shape of `x`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]


def denoising(energy: Energy, x: Tensor, eps: Tensor, *, sigma: float) -> Tensor:
    """1/2 |eps - sigma grad E(x + sigma eps)|^2 of each example: (B,).

    Args:
        energy: to be fitted.
        x: (B, ...) data.
        eps: the shape of `x`, standard normal.
        sigma: standard deviation of the noise.
    """
    error = eps - sigma * slope_of(energy, x + sigma * eps)
    return 0.5 * error.square().flatten(1).sum(1)


def sliced(energy: Energy, x: Tensor, v: Tensor, *, norm: Literal["full", "sliced"] = "full") -> Tensor:
    """1/2 |grad E|^2 - v' grad^2 E v of each example: (B,).

    Args:
        energy: to be fitted.
        x: (B, ...) data.
        v: the shape of `x`, directions of mean square I: signs, or normal.
        norm: `full` is the form of less variance; `sliced` has (v' grad E)^2 / 2 in place of the norm.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        along = (v * slope).flatten(1).sum(1)  # v' grad E
        (bend,) = torch.autograd.grad(along.sum(), x, create_graph=True)
    curvature = (v * bend).flatten(1).sum(1)
    square = slope.square().flatten(1).sum(1) if norm == "full" else along.square()
    return 0.5 * square - curvature
