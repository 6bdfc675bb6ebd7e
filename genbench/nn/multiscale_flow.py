"""The multi-scale architecture of flows: space becomes channels, and half of the channels leave at every level.

Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2016, arXiv:1605.08803, Sec. 3.6; Kingma, Dhariwal,
"Glow", 2018, arXiv:1807.03039, Sec. 3 and Fig. 2b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genbench.nn.bijection import Bijection, Chain
from genbench.nn.coupling import squeeze, unsqueeze


class Leaving(nn.Module):
    """What happens to the half that leaves: nothing here; a subclass may move and scale it by the half that stays."""

    def forward(self, left: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of the shape of `left`, and their log-determinant, (B,) or ()."""
        return left, left.new_zeros(())

    def inverse(self, z: Tensor, kept: Tensor) -> Tensor:
        """The `left` whose latents are `z`."""
        return z


class MultiScale(Bijection):
    """Images (B, C, H, W) to latents (B, D), those that leave first come first.

    Args:
        shape: (C, H, W) of one example.
        num_levels: at least 1; see `possible_levels`.
        make_level: from the channels at a level, after its squeeze, to the steps there, which keep the shape.
        make_leaving: from the channels that stay to what happens to as many that leave.
        make_fine: from channels to the steps before every squeeze; half of the channels then leave the last level too,
            and such steps end the flow. None has nothing there, and the last level keeps all its channels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_levels: int,
        make_level: Callable[[int], Bijection],
        make_leaving: Callable[[int], Leaving] = lambda kept: Leaving(),
        make_fine: Callable[[int], Bijection] | None = None,
    ) -> None:
        super().__init__()
        C, H, W = shape
        fine: list[Bijection] = []
        levels: list[Bijection] = []
        leaving: list[Leaving] = []
        self.shapes: list[tuple[int, int, int]] = []  # of what leaves each level, and of what stays
        for k in range(num_levels):
            fine.append(make_fine(C) if make_fine else Chain())
            C, H, W = 4 * C, H // 2, W // 2
            levels.append(make_level(C))
            if make_fine or k + 1 < num_levels:
                C //= 2
                leaving.append(make_leaving(C))
                self.shapes.append((C, H, W))
        self.shapes.append((C, H, W))
        self.fine = cast("Sequence[Bijection]", nn.ModuleList(fine))
        self.levels = cast("Sequence[Bijection]", nn.ModuleList(levels))
        self.leaving = cast("Sequence[Leaving]", nn.ModuleList(leaving))
        self.last = make_fine(C) if make_fine else Chain()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, D), and log-determinants (B,)."""
        total = x.new_zeros(len(x))
        parts: list[Tensor] = []
        for k, (fine, level) in enumerate(zip(self.fine, self.levels, strict=True)):
            x, fine_log_det = fine(x)
            x, log_det = level(squeeze(x))
            total = total + fine_log_det + log_det
            if k < len(self.leaving):
                x, left = x.chunk(2, dim=1)
                z, log_det = self.leaving[k](left, x)
                parts.append(z.flatten(1))
                total = total + log_det
        x, log_det = self.last(x)
        return torch.cat([*parts, x.flatten(1)], dim=1), total + log_det

    def inverse(self, y: Tensor) -> Tensor:
        """(B, D) to (B, C, H, W)."""
        parts = y.split([math.prod(shape) for shape in self.shapes], dim=1)
        pieces = [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        x: Tensor = self.last.inverse(pieces[-1])
        for k in reversed(range(len(self.levels))):
            if k < len(self.leaving):
                x = torch.cat([x, self.leaving[k].inverse(pieces[k], x)], dim=1)
            x = self.fine[k].inverse(unsqueeze(self.levels[k].inverse(x)))
        return x

    def initialise(self, x: Tensor) -> Tensor:
        """Each level by what the levels before it make of the batch."""
        parts: list[Tensor] = []
        for k, (fine, level) in enumerate(zip(self.fine, self.levels, strict=True)):
            x = level.initialise(squeeze(fine.initialise(x)))
            if k < len(self.leaving):
                x, left = x.chunk(2, dim=1)
                parts.append(self.leaving[k](left, x)[0].flatten(1))
        return torch.cat([*parts, self.last.initialise(x).flatten(1)], dim=1)


def possible_levels(height: int, width: int, *, wanted: int) -> int:
    """Levels at which both sides can be halved, at most `wanted`; 0 where a side is odd."""
    possible = 0
    while possible < wanted and height % 2 == 0 and width % 2 == 0:
        height, width, possible = height // 2, width // 2, possible + 1
    return possible
