"""A grid of features as codes on several grids from coarse to fine, each of what those before it have left over.

Tian et al. 2024 (2404.02905), Algorithms 1 and 2. On scale k the rest is pooled to the scale's own grid and every place
takes its nearest code; the vectors are brought back to the full grid, smoothed by a filter phi, and subtracted:

    r_k = nearest(pool(f - f^_(k-1), s_k)),    f^_k = f^_(k-1) + phi_k(rise(e(r_k))),    f^_0 = 0

One codebook serves all scales. Scales share a few filters, phi(h) = (1 - 1/2) h + 1/2 conv(h).

Symbols: f features, f^_k their approximation by k scales, s_k sides, L the number of all codes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn.vector_quantizer import Codebook, Quantised, VectorQuantizer, copied

NUM_FILTERS = 4
"""Filters that the scales share (the authors' code)."""
FILTERED_SHARE = 0.5
"""Of a filter's result, the rest is what came in (the authors' code)."""


class Filter(nn.Module):
    """phi, (B, D, S, S) to the same shape."""

    def __init__(self, code_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(code_dim, code_dim, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Smooth what one scale adds."""
        smoothed: Tensor = torch.lerp(h, self.conv(h), FILTERED_SHARE)
        return smoothed


class MultiScaleQuantizer(nn.Module):
    """Codes on grids of several sides; codes of all scales are one row, the coarse first, each row after row.

    It is used as a `VectorQuantizer`, with codes (B, L) in place of (B, H, W).

    Args:
        num_codes: K.
        code_dim: D.
        sides: of the grids, rising; the last is that of the features.
        decay: of the running means, see `VectorQuantizer`.
        revival_share: as there.
        codebook: as there; filters are always trained.
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        sides: Sequence[int],
        *,
        decay: float,
        revival_share: float,
        codebook: Codebook = "ema",
    ) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.book = VectorQuantizer(num_codes, code_dim, decay=decay, revival_share=revival_share, codebook=codebook)
        filters = [Filter(code_dim) for _ in range(min(NUM_FILTERS, len(self.sides)))]
        self.filters = cast("Sequence[Filter]", nn.ModuleList(filters))

    @property
    def counts(self) -> list[int]:
        """Codes on each scale."""
        return [side**2 for side in self.sides]

    @property
    def length(self) -> int:
        """Codes on all scales together, L."""
        return sum(self.counts)

    def forward(self, features: Tensor) -> Quantised:
        """Quantise features (B, D, S, S) on all scales; the codebook stays as it is.

        Commitment and attraction are means over the scales, of the distance of the features to f^_k.
        """
        target = features.detach()
        total, codes = torch.zeros_like(target), []
        commitment = attraction = features.new_zeros(())
        for k, side in enumerate(self.sides):
            chosen = self.book.nearest(pooled(target - total.detach(), side))
            total = total + self.risen(chosen, k)
            codes.append(chosen.flatten(1))
            commitment = commitment + F.mse_loss(features, total.detach()) / len(self.sides)
            attraction = attraction + F.mse_loss(total, target) / len(self.sides)
        return Quantised(copied(features, total.detach()), torch.cat(codes, dim=1), commitment, attraction)

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """Codes of features (B, D, S, S): (B, L) int64."""
        codes: Tensor = self(features).codes
        return codes

    def embed(self, codes: Tensor) -> Tensor:
        """Approximation f^ that codes (B, L) of all scales stand for: (B, D, S, S)."""
        return sum(self.parts(codes), start=self.book.codebook.new_zeros(()))

    def parts(self, codes: Tensor) -> list[Tensor]:
        """What each scale adds to the approximation, for codes (B, L): (B, D, S, S) each."""
        return [self.risen(part, k) for k, part in enumerate(self.split(codes))]

    def split(self, codes: Tensor) -> list[Tensor]:
        """Codes (B, L) as the grids of the scales, (B, s_k, s_k) each."""
        pieces = zip(codes.split(self.counts, dim=1), self.sides, strict=True)
        return [piece.unflatten(1, (side, side)) for piece, side in pieces]

    def risen(self, codes: Tensor, k: int) -> Tensor:
        """What codes (B, s_k, s_k) of scale `k` add to the approximation: (B, D, S, S)."""
        return self._filtered(self.book.embed(codes), k)

    def seen_by_next(self, total: Tensor, k: int) -> Tensor:
        """What scale `k` is told of the approximation `total` (B, D, S, S) by those before it: (B, s_k^2, D)."""
        return pooled(total, self.sides[k]).flatten(2).transpose(1, 2)

    def seen_by_all(self, codes: Tensor) -> Tensor:
        """What every scale but the first is told in training, for codes (B, L): (B, L - s_1^2, D)."""
        parts = self.parts(codes)
        total = torch.zeros_like(parts[0])
        told = [total.flatten(2).transpose(1, 2)[:, :0]]
        for k, part in enumerate(parts[:-1]):
            total = total + part
            told.append(self.seen_by_next(total, k + 1))
        return torch.cat(told, dim=1)

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor) -> None:
        """Let the codebook follow what was quantised of features (B, D, S, S) on all scales to codes (B, L)."""
        self.book.update(self._rests(features, codes), codes)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Start from k-means on what scales leave over of features (B, D, S, S) if each takes in all that it sees."""
        rest, found = features.detach(), []
        for k, side in enumerate(self.sides):
            seen = pooled(rest, side)
            found.append(seen.flatten(2))
            rest = rest - self._filtered(seen, k)
        self.book.fit(torch.cat(found, dim=2)[..., None])

    def perplexity(self) -> Tensor:
        """Effective number of codes in use: scalar in 1 .. K."""
        return self.book.perplexity()

    def _filtered(self, vectors: Tensor, k: int) -> Tensor:
        """Vectors (B, D, s_k, s_k) of scale `k` on the full grid, smoothed: (B, D, S, S)."""
        full = self.sides[-1]
        if self.sides[k] != full:
            vectors = F.interpolate(vectors, size=(full, full), mode="bicubic")
        filtered: Tensor = self.filters[k * len(self.filters) // len(self.sides)](vectors)
        return filtered

    def _rests(self, features: Tensor, codes: Tensor) -> Tensor:
        """What each code (B, L) was chosen for, pooled: (B, D, L, 1), places in the order of the codes."""
        rest, found = features.detach(), []
        for part, side in zip(self.parts(codes), self.sides, strict=True):
            found.append(pooled(rest, side).flatten(2))
            rest = rest - part
        return torch.cat(found, dim=2)[..., None]


def pooled(features: Tensor, side: int) -> Tensor:
    """Means over the areas of a coarser grid: (B, D, S, S) to (B, D, side, side)."""
    return features if features.shape[-1] == side else F.adaptive_avg_pool2d(features, side)
