"""A convolutional discriminator that judges overlapping patches of an image, and not the image.

Isola et al. 2017 (1611.07004), Sec. 3.2.2 and Appendix 6.1.2: convolutions of 4 x 4 with stride 2, whose channels
double from one to the next, then two of stride 1; batch normalisation in all but the first and the last. One logit for
each patch. An image too small for all halvings gets as many as leave 3 pixels a side.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky ReLU."""
WIDEST = 8
"""Channels of the widest layer in multiples of the first's."""
SMALLEST_GRID = 3
"""Pixels a side that the two convolutions of stride 1 need: each takes one away."""
INITIAL_STD = 0.02
"""Of the weights of convolutions; those of normalisations have mean 1 and the same deviation."""


class PatchDiscriminator(nn.Module):
    """Images (B, C, side, side) in [-1, 1] to logits (B, 1, s, s), larger for real patches.

    Args:
        num_channels: C.
        side: of the images.
        width: channels of the first layer.
        num_halvings: at most.

    Raises:
        ValueError: the images have fewer than `SMALLEST_GRID` pixels a side.
    """

    def __init__(self, num_channels: int, side: int, *, width: int, num_halvings: int = 3) -> None:
        super().__init__()
        if side < SMALLEST_GRID:
            raise ValueError(f"patches need images of at least {SMALLEST_GRID} pixels a side, found {side}")
        strides = [2] * halvings_above(side, SMALLEST_GRID, at_most=num_halvings) + [1]
        widths = [width * min(2**i, WIDEST) for i in range(len(strides))]
        layers = [nn.Sequential(nn.Conv2d(num_channels, width, 4, strides[0], 1), nn.LeakyReLU(SLOPE))]
        for (before, after), stride in zip(itertools.pairwise(widths), strides[1:], strict=True):
            conv = nn.Conv2d(before, after, 4, stride, 1, bias=False)  # the normalisation has one
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)))
        self.layers = cast("Sequence[nn.Module]", nn.ModuleList(layers))
        self.head = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=INITIAL_STD)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1.0, std=INITIAL_STD)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations of every layer but the last: (B, channels, h, w) each."""
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """Logits of the patches of images whose activations are known: (B, 1, s, s) float32."""
        patches: Tensor = self.head(features[-1])
        return patches.float()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the patches of images: (B, 1, s, s) float32."""
        return self.logits(self.features(x))


def halvings_above(side: int, smallest: int, *, at_most: int) -> int:
    """Halvings, each rounding down, that leave at least `smallest` of `side`."""
    return max(n for n in range(at_most + 1) if side // 2**n >= smallest)
