"""A network whose outputs for one dimension see the dimensions before it alone.

Germain, Gregor, Murray, Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015, arXiv:1502.03509.

Every hidden unit has a degree m in 1 .. D-1 and sees inputs 1 .. m; masks let a unit look at units of no higher degree,
and output d at units of degrees below d (Sec. 4). Units stand in the order of their degrees, so that what a new input
changes is one block of every layer: dimensions can be drawn one by one at the cost of a single pass through the
network, where D passes are the custom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are zero.

    Args:
        mask: (outputs, inputs) of zeros and ones.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        return F.linear(x, self.weight * self.mask, self.bias)

    def rows(self, x: Tensor, rows: slice) -> Tensor:
        """Outputs of some units from the first inputs, (B, n), which are all that these units may see."""
        return F.linear(x, self.weight[rows, : x.shape[1]], self.bias[rows])


class MADE(nn.Module):
    """Map (B, D) to (B, P, D) with output i a function of inputs before i.

    Args:
        num_dims: D.
        num_outputs: P, for each dimension.
        width: hidden units of each layer.
        num_layers: hidden layers; odd where they are residual.
        residual: two layers after the first are added to what stood before them (Durkan et al. 2019, arXiv:1906.04032,
            Appendix B).

    Raises:
        ValueError: an even number of residual layers.
    """

    def __init__(self, num_dims: int, num_outputs: int, *, width: int, num_layers: int, residual: bool = False) -> None:
        super().__init__()
        if num_layers < 1 or (residual and num_layers % 2 == 0):
            raise ValueError(f"residual layers come in pairs after a first one, found {num_layers} layers")
        self.num_dims, self.num_outputs, self.residual = num_dims, num_outputs, residual
        inputs, hidden = torch.arange(1, num_dims + 1), _degrees(num_dims, width)
        self.stem = MaskedLinear(_sees(hidden, inputs))
        layers = [MaskedLinear(_sees(hidden, hidden)) for _ in range(num_layers - 1)]
        self.layers = cast("Sequence[MaskedLinear]", nn.ModuleList(layers))
        self.head = MaskedLinear(_sees(inputs - 1, hidden).repeat(num_outputs, 1))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        highest = max(1, num_dims - 1)
        self.units_known = [-(-i * width // highest) for i in range(num_dims)]  # of degree at most i

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, P, D); 0 at its start."""
        streams = [self.stem(x)]
        for number, layer in enumerate(self.layers, start=1):
            change = layer(F.relu(streams[-1]))
            streams.append(streams[-2] + change if self._joins(number) else change)
        out: Tensor = self.head(F.relu(streams[-1])).unflatten(1, (self.num_outputs, self.num_dims))
        return out

    @torch.no_grad()
    def one_by_one(self, num: int, find: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Inputs (num, D), each found from the outputs for it, which those before it give.

        Args:
            num: examples.
            find: from a dimension i and the outputs for it (num, P) to its values (num,).
        """
        like, width = self.stem.weight, len(self.stem.weight)
        x = like.new_zeros(num, self.num_dims)
        streams = [like.new_zeros(num, width) for _ in range(len(self.layers) + 1)]
        active = [like.new_zeros(num, width) for _ in streams]
        for i in range(self.num_dims):
            new, known = slice(self.units_known[i - 1] if i else 0, self.units_known[i]), self.units_known[i]
            if new.start < new.stop:
                self._advance(x[:, :i], new, streams, active)
            outputs = self.head.rows(active[-1][:, :known], slice(i, None, self.num_dims))
            x[:, i] = find(i, outputs)
        return x

    def _advance(self, x: Tensor, new: slice, streams: list[Tensor], active: list[Tensor]) -> None:
        """Compute the new units of every layer, in place."""
        for number, stream in enumerate(streams):
            if number == 0:
                change = self.stem.rows(x, new)
            else:
                change = self.layers[number - 1].rows(active[number - 1][:, : new.stop], new)
            stream[:, new] = streams[number - 2][:, new] + change if self._joins(number) else change
            active[number][:, new] = F.relu(stream[:, new])

    def _joins(self, number: int) -> bool:
        """Whether a layer ends a residual block; the stem has number 0."""
        return self.residual and number > 0 and number % 2 == 0


def _degrees(num_dims: int, width: int) -> Tensor:
    """1 .. D-1, rising and as even as can be: (width,)."""
    return 1 + torch.arange(width) * max(1, num_dims - 1) // width


def _sees(degrees: Tensor, of_inputs: Tensor) -> Tensor:
    """1 where the degree of an output is at least that of an input: (outputs, inputs)."""
    return (degrees[:, None] >= of_inputs).float()
