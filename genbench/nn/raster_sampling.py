"""Drawing images level after level, in raster order and channel by channel, from a network that remembers.

Symbols: `N C H W` samples, `K` levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genbench.nn._categorical_head import draw
from genbench.nn._gated_pixelcnn_cache import SAMPLES_AT_ONCE


class Progress(ABC):
    """What a network remembers of the images drawn so far."""

    @abstractmethod
    def start_row(self, i: int) -> None:
        """Compute what rows above say of row `i`."""

    @abstractmethod
    def start_pixel(self, j: int) -> None:
        """Compute what pixels on the left say of pixel `j` of the row."""

    @abstractmethod
    def logits(self, j: int, c: int) -> Tensor:
        """Logits (N, K) of channel `c` of pixel `j`, given the channels before it; asked for once, in order."""

    @abstractmethod
    def put(self, j: int, c: int, level: Tensor) -> None:
        """Take the levels (N,) drawn for channel `c` of pixel `j`."""

    @abstractmethod
    def finish_row(self) -> None:
        """Keep what later rows need of the row that is complete."""


def draw_in_raster_order(begin: Callable[[int], Progress], uniforms: Tensor) -> Tensor:
    """Invert the distribution at uniforms (N, C, H, W): codes of the same shape, int64.

    Args:
        begin: number of samples to their progress, before anything is drawn.
        uniforms: in [0, 1), one for each level.
    """
    return torch.cat([_drawn(begin(len(chunk)), chunk) for chunk in uniforms.split(SAMPLES_AT_ONCE)])


def _drawn(progress: Progress, uniforms: Tensor) -> Tensor:
    _, C, H, W = uniforms.shape
    codes = torch.zeros(uniforms.shape, dtype=torch.int64, device=uniforms.device)
    for i in range(H):
        progress.start_row(i)
        for j in range(W):
            progress.start_pixel(j)
            for c in range(C):
                level = draw(progress.logits(j, c), uniforms[:, c, i, j])
                progress.put(j, c, level)
                codes[:, c, i, j] = level
        progress.finish_row()
    return codes
