"""Autoregressive flow that writes data in one pass: samples fast, densities dimension after dimension.

"Improved Variational Inference with Inverse Autoregressive Flow", Diederik P. Kingma, Tim Salimans, Rafal Jozefowicz,
Xi Chen, Ilya Sutskever, Max Welling, 2016 (NIPS 2016), arXiv:1606.04934; beside a flow that reads data in one pass,
Papamakarios et al. 2017, arXiv:1705.07057, Sec. 3.2.

Idea: if means and scales of a dimension are functions of the *noise* of the dimensions before it, all dimensions of a
sample come from one pass through a masked network, and so does its density. Data that the flow did not draw must be
turned back into noise one dimension after the other.

Legend: `z` noise with base N(0, I), `x` data, `t` shift, `s` log-scale:

    x_i = t_i + exp(s_i) z_i,    t_i, s_i functions of z_1 .. z_{i-1},    log |det dz/dx| = -sum_i s_i

Training asks for the gradient of the density of data. The noise of an example is found without a graph, by D small
steps that do the work of one pass (`nn.made`). As it solves x = f(z), the gradient in the weights follows from the
implicit function theorem: a vector v with J^T v = g, J = df/dz, takes g through the solution. J is triangular, so that
v <- v + diag(J)^-1 (g - J^T v) ends at the solution after at most D products with J^T, most often after a few (Song et
al. 2021, arXiv:2002.03629).

**Departures**
- The paper has the flow as the posterior of an autoencoder, which needs densities of its own samples alone; here it is
  the model of the data and trained by maximum likelihood.
- Networks see 3 tanh(z / 3) in place of z. The noise of data that the flow would never draw can be large, and through
  functions of it the next dimension's larger still, until densities overflow; so it stays within bounds.
- Scales are exp(s) with s bounded by 5 tanh(s / 5), where the paper has a gate of a sigmoid for stability; actnorm
  stands between layers.
- `smoke`, `small` and `vector` use narrow networks, higher learning rates and averaged weights. `paper` and
  `paper_vector` have the sizes that the second paper's code has for its own flow, which neither paper tries for this.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, Margin, Positive, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.bijection import Bijection, Chain, Flatten, Normalise, Reverse
from genbench.nn.elementwise_maps import Standardise
from genbench.nn.made import MADE

REACH = 3.0
"""Noise beyond so many standard deviations says no more to the networks."""
SOLVED = 100.0
"""A residual of so many roundings of the largest entry counts as solved."""


class InverseAutoregressive(Bijection):
    """x_i = t_i + exp(s_i) z_i with t_i, s_i functions of z_1 .. z_{i-1}; `forward` is from x to z.

    Args:
        num_dims: D.
        width: hidden units of each layer of the network.
        num_layers: its hidden layers.
    """

    def __init__(self, num_dims: int, *, width: int, num_layers: int) -> None:
        super().__init__()
        self.elementwise = Standardise()
        self.made = MADE(num_dims, self.elementwise.num_parameters, width=width, num_layers=num_layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) dimension after dimension, and log-determinants (B,); gradients are those of the exact inverse."""
        found = torch.empty_like(x)

        def find(i: int, raw: Tensor) -> Tensor:
            found[:, i] = self.elementwise.forward(x[:, i], raw)[0]
            return _within_reach(found[:, i])

        with torch.autocast(x.device.type, enabled=False):  # errors of half precision would grow with every step
            self.made.one_by_one(len(x), find)
            z = _with_gradient(self, x, found) if torch.is_grad_enabled() else found
            return z, -self.elementwise.log_deviation(self.parameters_for(z)).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Data from noise in one pass; carries gradients."""
        return self.elementwise.inverse(y, self.parameters_for(y))

    def parameters_for(self, z: Tensor) -> Tensor:
        """Log-scales before their bound, and shifts, from the noise before each dimension: (B, 2, D)."""
        raw: Tensor = self.made(_within_reach(z))
        return raw


def _within_reach(z: Tensor) -> Tensor:
    """Noise as the networks see it: itself near 0, bounded far out."""
    return REACH * (z / REACH).tanh()


def _with_gradient(layer: InverseAutoregressive, x: Tensor, found: Tensor) -> Tensor:
    """The solution z of x = f(z), with the gradient that it has as a function of `x` and of the weights of f."""
    residual = x - layer.inverse(found)  # 0, but for rounding
    z = found + (residual - residual.detach())
    if not z.requires_grad:
        return z
    start = found.detach().requires_grad_()
    raw = layer.parameters_for(start)
    image = layer.elementwise.inverse(start, raw)
    inverse_diagonal = (-layer.elementwise.log_deviation(raw)).exp().detach()

    def through_solution(gradient: Tensor) -> Tensor:
        return _solve_transposed(image, start, inverse_diagonal, gradient)

    z.register_hook(through_solution)
    return z


def _solve_transposed(image: Tensor, start: Tensor, inverse_diagonal: Tensor, gradient: Tensor) -> Tensor:
    """The v with J^T v = gradient for the triangular J = d image / d start of every example: (B, D)."""
    v = gradient * inverse_diagonal
    least = SOLVED * torch.finfo(v.dtype).eps * gradient.abs().max()
    for _ in range(gradient.shape[1] - 1):
        (product,) = torch.autograd.grad(image, start, v, retain_graph=True)
        left = gradient - product
        if bool(left.abs().max() <= least):
            break
        v = v + inverse_diagonal * left
    return v


@register_model("iaf")
class IAF(ExactFlow):
    """Inverse autoregressive flow; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings; the defaults are those of MAF(5) for MNIST."""

        num_flows: Count = 5
        """Layers."""
        num_layers: Count = 2
        """Hidden layers of each network."""
        width: Count = 1024
        """Units of each hidden layer."""
        alpha: Margin | None = 1.0e-6
        """Margin of the logit of pixels; None has them on [-1, 1]."""
        lr: Positive = 1.0e-4
        warmup_steps: Whole = 0
        final_lr_share: Share = 1.0
        clip_norm: Positive | None = None
        ema_decay: Fraction | None = None
        batch_size: Count = 100

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(
            num_flows=2,
            num_layers=1,
            width=256,
            alpha=0.05,
            lr=2.0e-3,
            warmup_steps=20,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.98,
        ),
        "small": Config(
            num_flows=3,
            num_layers=1,
            width=512,
            alpha=0.05,
            lr=1.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
        ),
        "vector": Config(
            num_flows=8,
            width=64,
            lr=3.0e-3,
            warmup_steps=50,
            final_lr_share=0.05,
            clip_norm=5.0,
            ema_decay=0.99,
            batch_size=256,
        ),
        "paper": Config(),
        "paper_vector": Config(num_flows=10, width=512),
    }
    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        D, parts = spec.num_dims, list[Bijection]()
        for number in range(config.num_flows):
            parts += [Reverse()] if number else []
            parts += [Normalise(D), InverseAutoregressive(D, width=config.width, num_layers=config.num_layers)]
        self.flow = Chain(Flatten(spec.shape), *parts)
