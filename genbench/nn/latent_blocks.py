"""Blocks of hierarchical autoencoders: dense layers and Gaussian moments, and two networks of a hierarchy of grids.

`DenseLayers` and `Moments` are those of Sonderby et al. (2016, 1602.02282).

`BottomUp` and `TopDown` follow Child (2020, 2011.10650, Sec. 3). The top-down network is one path for both uses. A
block reads its state, gets from it the prior of its codes, draws them from the posterior (which also sees the image's
features of the same side) or from the prior, and adds what the draw says to the state. No normalisation: the last
convolution of every residual branch and the projection of every draw start 1/sqrt(N) as large, N the number of blocks,
so that the variance of the state does not grow with depth; priors start as N(0, 1).

Grids halve with their sides rounded up: a pooled patch that reaches over the edge is averaged over what is there, and
what exceeds an odd side is cut off on the way up.

Shapes on grids: states and features (B, width, side, side), codes (B, latent_dim, side, side).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_SIDE_OF_3X3 = 3  # a 3 x 3 convolution over fewer pixels would see mostly padding
LARGEST_LEARNED_SIDE = 64  # above it a state starts from zeros rather than from a learned grid
LEAK = 0.1  # slope of the rectifiers below zero
MIN_VARIANCE = 1e-6  # keeps every precision finite; Softplus itself underflows to 0

Draw = Callable[[Tensor, Tensor], Tensor]
"""Moments mu and log_sigma to codes of their shape."""
Codes = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Codes of one layer, mu_q and log_sigma_q of what they were drawn from, mu_p and log_sigma_p of the prior."""


class DenseLayers(nn.Sequential):
    """Two dense layers with leaky rectifiers, normalised over the batch or not: the MLP of the ladder."""

    def __init__(self, num_inputs: int, width: int, *, normalised: bool) -> None:
        layers: list[nn.Module] = []
        for inputs in (num_inputs, width):
            linear = nn.Linear(inputs, width, bias=not normalised)
            nn.init.kaiming_normal_(linear.weight, a=LEAK)
            norm: list[nn.Module] = [nn.BatchNorm1d(width)] if normalised else []
            layers += [linear, *norm, nn.LeakyReLU(LEAK)]
        super().__init__(*layers)


class Moments(nn.Module):
    """Features to mu and log_sigma, (B, D) each: Linear, and half the logarithm of Softplus(Linear)."""

    def __init__(self, num_inputs: int, num_codes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, 2 * num_codes)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Moments in float32."""
        mu, raw = self.linear(h).float().chunk(2, dim=1)
        return mu, 0.5 * torch.log(F.softplus(raw) + MIN_VARIANCE)


class Step(NamedTuple):
    """One block of either network."""

    side: int
    """Of the grid it works on."""
    other: int | None = None
    """Bottom-up: the factor by which it pools its output; top-down: the side of the smaller grid it first takes in."""


class Bottleneck(nn.Sequential):
    """Convolutions in -> hidden -> hidden -> hidden -> out, each behind a GELU; no shortcut.

    Args:
        in_channels: of the input.
        hidden: channels of the inner convolutions.
        out_channels: of the output.
        side: of the grid, which says whether the two middle convolutions are 3 x 3 or 1 x 1.
        gain: what the last convolution's weights are multiplied by at the start.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int, *, side: int, gain: float = 1.0) -> None:
        kernel = 3 if side >= SMALLEST_SIDE_OF_3X3 else 1
        layers: list[nn.Module] = []
        widths = [in_channels, hidden, hidden, hidden, out_channels]
        for size, (inputs, outputs) in zip([1, kernel, kernel, 1], itertools.pairwise(widths), strict=True):
            conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
            nn.init.zeros_(conv.get_parameter("bias"))
            layers += [nn.GELU(), conv]
        layers[-1].get_parameter("weight").data.mul_(gain)
        super().__init__(*layers)


class BottomUp(nn.Module):
    """Image to features on every grid, by residual bottlenecks and average pooling.

    Args:
        in_channels: of the image.
        width: channels of all features.
        hidden: channels inside the bottlenecks.
        steps: from the image's side down.
    """

    def __init__(self, in_channels: int, *, width: int, hidden: int, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        gain = 1.0 / math.sqrt(len(steps))
        blocks = [Bottleneck(width, hidden, width, side=step.side, gain=gain) for step in steps]
        self.blocks = cast("Sequence[Bottleneck]", nn.ModuleList(blocks))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Features by side, those of the last block on each grid."""
        h = self.stem(x)
        features = {h.shape[-1]: h}
        for step, block in zip(self.steps, self.blocks, strict=True):
            h = h + block(h)
            if step.other is not None:
                h = F.avg_pool2d(h, step.other, ceil_mode=True)
            features[h.shape[-1]] = h
        return features


class TopDownBlock(nn.Module):
    """One layer of codes: prior, posterior and what a draw does to the state.

    Args:
        width: channels of state and features.
        hidden: channels inside the bottlenecks.
        latent_dim: channels of the codes.
        side: of the grid.
        gain: 1/sqrt(N).
    """

    def __init__(self, width: int, hidden: int, latent_dim: int, *, side: int, gain: float) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.posterior: nn.Module = Bottleneck(2 * width, hidden, 2 * latent_dim, side=side)
        self.prior: nn.Module = Bottleneck(width, hidden, 2 * latent_dim + width, side=side, gain=0.0)
        self.project = nn.Conv2d(latent_dim, width, 1)
        self.project.weight.data.mul_(gain)
        nn.init.zeros_(self.project.get_parameter("bias"))
        self.branch = Bottleneck(width, hidden, width, side=side, gain=gain)

    def forward(self, h: Tensor, features: Tensor | None, *, draw: Draw) -> tuple[Tensor, Codes]:
        """State after this layer, and its codes; without features the posterior is the prior."""
        split = [2 * self.latent_dim, h.shape[1]]
        moments_p, extra = self.prior(h).split(split, dim=1)
        moments_q = moments_p if features is None else self.posterior(torch.cat([h, features], dim=1))
        mu_p, log_sigma_p = moments_p.float().chunk(2, dim=1)
        mu_q, log_sigma_q = moments_q.float().chunk(2, dim=1)
        z = draw(mu_q, log_sigma_q)
        h = h + extra + self.project(z)
        return h + self.branch(h), (z, mu_q, log_sigma_q, mu_p, log_sigma_p)


class TopDown(nn.Module):
    """Layers of codes from the smallest grid to the largest, along one state for each grid.

    A state starts as a learned grid, the same for every image. The first block on a larger grid adds the state of
    the smaller one, each pixel repeated.

    Args:
        width: channels of state and features.
        hidden: channels inside the bottlenecks.
        latent_dim: channels of the codes of one layer.
        steps: from the smallest side up.
    """

    def __init__(self, *, width: int, hidden: int, latent_dim: int, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps, self.width = tuple(steps), width
        gain = 1.0 / math.sqrt(len(steps))
        blocks = [TopDownBlock(width, hidden, latent_dim, side=step.side, gain=gain) for step in steps]
        self.blocks = cast("Sequence[TopDownBlock]", nn.ModuleList(blocks))
        sides = sorted({step.side for step in steps if step.side <= LARGEST_LEARNED_SIDE})
        self.starts = nn.ParameterDict({str(side): nn.Parameter(torch.zeros(width, side, side)) for side in sides})
        self.gain = nn.Parameter(torch.ones(width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(
        self, num_images: int, features: Mapping[int, Tensor] | None, *, draw: Draw
    ) -> tuple[Tensor, list[Codes]]:
        """State of the largest grid, and the codes of all layers, the topmost first.

        Args:
            num_images: B.
            features: of the images by side; None draws from the prior.
            draw: how codes come from their moments.
        """
        states: dict[int, Tensor] = {}
        layers = []
        for step, block in zip(self.steps, self.blocks, strict=True):
            h = states[step.side] if step.side in states else self._start(step.side, num_images)
            if step.other is not None:
                h = h + enlarged(states[step.other], step.side)
            h, codes = block(h, None if features is None else features[step.side], draw=draw)
            states[step.side] = h
            layers.append(codes)
        return h * self.gain + self.bias, layers

    def _start(self, side: int, num_images: int) -> Tensor:
        if side > LARGEST_LEARNED_SIDE:
            return self.gain.new_zeros(num_images, self.width, side, side)
        start: Tensor = self.starts[str(side)]
        return start.expand(num_images, -1, -1, -1)


def enlarged(h: Tensor, side: int) -> Tensor:
    """Grid (B, C, s, s) with every pixel repeated until `side` is reached, the excess cut off: (B, C, side, side)."""
    factor = -(-side // h.shape[-1])
    return F.interpolate(h, scale_factor=float(factor), mode="nearest")[:, :, :side, :side]
