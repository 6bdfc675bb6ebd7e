"""A generator and a discriminator made of transformer blocks over grids, the networks of TransGAN.

Jiang, Chang and Wang 2021 (2102.07074), Sec. 3. The generator starts from a small grid of wide elements and doubles
its sides stage by stage: by bicubic resampling with the width kept, or by pixel-shuffle, which makes four narrow
elements of a wide one. The discriminator reads patches of several sizes: after each stage its grid is pooled and
joined by an embedding of patches twice as large. On large grids elements attend within cells of the grid alone (grid
self-attention).

    attention   softmax(q k^T / sqrt(d) + E) v,   E a learned bias for each head and each offset of two places
    pixel norm  x / sqrt(mean over features of x^2 + 1e-8), in the place of layer normalisation

Symbols: `B` images, `C` features of an element, `h` heads, `d` = C / h, `s` side of a grid or of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-8
"""Of the pixel norm (Sec. 3.4)."""
PLACES_STD = 0.02
"""Of learned places and biases at the start."""


def pixel_norm(x: Tensor) -> Tensor:
    """Elements (..., C) scaled to a mean square of one; nothing is learned and no mean is taken away."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + TINY)


class CellAttention(nn.Module):
    """Self-attention within the cells of a grid, with a bias for the offset of two places.

    The product is written out: fused attention cannot be differentiated twice, which the penalty of a critic asks.

    Args:
        width: C; `num_heads` must divide it.
        num_heads: h.
        cell: s of a cell.
    """

    offsets: Tensor

    def __init__(self, width: int, *, num_heads: int, cell: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"a width of {width} does not split into {num_heads} heads")
        self.num_heads, self.cell = num_heads, cell
        self.qkv = _linear(width, 3 * width)
        self.out = _linear(width, width)
        self.bias = nn.Parameter(torch.randn(num_heads, (2 * cell - 1) ** 2) * PLACES_STD)
        self.register_buffer("offsets", offsets_within(cell), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within cells: (N, s^2, C), whole cells in raster order, to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (N, h, s^2, d)
        likeness = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + self.bias[:, self.offsets]
        mixed: Tensor = self.out((likeness.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """x + attention(norm(x)), then x + dense(norm(x)), with pixel norms.

    Args:
        width: C.
        side: of the grid.
        num_heads: of the attention.
        cell: greatest side of a cell; a grid that it does not divide is one cell.
        expansion: units of the dense layers for each of C.
    """

    def __init__(self, width: int, *, side: int, num_heads: int, cell: int, expansion: int) -> None:
        super().__init__()
        self.side, self.cell = side, cell if side % cell == 0 else side
        self.attention = CellAttention(width, num_heads=num_heads, cell=self.cell)
        self.wide, self.narrow = _linear(width, expansion * width), _linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map the elements of a grid in raster order, (B, s^2, C)."""
        cells = to_cells(pixel_norm(x), side=self.side, cell=self.cell)
        x = x + from_cells(self.attention(cells), side=self.side, cell=self.cell)
        dense: Tensor = self.narrow(F.gelu(self.wide(pixel_norm(x))))
        return x + dense


class Places(nn.Module):
    """Adds a learned embedding of its place to every element (B, s^2, C) of a grid."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(side**2, width) * PLACES_STD)

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.table


class Double(nn.Module):
    """(B, s^2, C) to (B, (2 s)^2, C) by bicubic resampling, or to (B, (2 s)^2, C / 4) by pixel-shuffle.

    Args:
        side: s.
        keep_width: whether to resample; pixel-shuffle does not.
    """

    def __init__(self, side: int, *, keep_width: bool) -> None:
        super().__init__()
        self.side, self.keep_width = side, keep_width

    def forward(self, x: Tensor) -> Tensor:
        """Double both sides."""
        grid = _as_grid(x, self.side)
        if self.keep_width:
            return _as_elements(F.interpolate(grid, scale_factor=2.0, mode="bicubic", align_corners=False))
        return _as_elements(F.pixel_shuffle(grid, 2))


class GridGenerator(nn.Module):
    """Latents (B, Z) to images (B, C, H, W), unbounded, through grids of doubling sides.

    Args:
        shape: (C, H, W) of an image.
        latent_dim: Z.
        width: of the elements of the first grid.
        depths: blocks on each grid, from the first on; the first side is what as many halvings leave of the image's.
        num_heads: of each block.
        cell: greatest side of a cell of attention.
        expansion: of the dense layers.
        bicubic_below: grids that are doubled to a side below this one are resampled with their width kept.

    Raises:
        ValueError: the image cannot be halved as often as there are stages.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int,
        width: int,
        depths: Sequence[int],
        num_heads: int,
        cell: int,
        expansion: int,
        bicubic_below: int,
    ) -> None:
        super().__init__()
        side, rest = divmod(shape[-1], 2 ** (len(depths) - 1))
        if rest or not side:
            raise ValueError(f"{shape[-1]} px cannot be halved {len(depths) - 1} times")
        self.side, self.first = side, _linear(latent_dim, width * side**2)
        stages: list[nn.Module] = []
        for index, depth in enumerate(depths):
            if index:
                keep = 2 * side < bicubic_below
                stages.append(Double(side, keep_width=keep))
                side, width = 2 * side, width if keep else width // 4
            stages.append(Places(side, width))
            stages += [
                Block(width, side=side, num_heads=num_heads, cell=cell, expansion=expansion) for _ in range(depth)
            ]
        self.stages = nn.Sequential(*stages)
        self.to_pixels, self.last_side = _linear(width, shape[0]), side

    def forward(self, z: Tensor) -> Tensor:
        """Draw (B, C, H, W)."""
        x = self.stages(self.first(z).unflatten(1, (self.side**2, -1)))
        return _as_grid(self.to_pixels(pixel_norm(x)), self.last_side)


class MultiScaleDiscriminator(nn.Module):
    """Images (B, C, H, W) to scores (B,): stages of blocks on grids of patches, joined by larger patches on the way.

    Args:
        shape: (C, H, W) of an image.
        patch: side of the smallest patches; each stage doubles it.
        width: of the elements of the first grid; each stage doubles it, one half its own patches.
        depths: blocks of each stage; one more follows, over the last grid and an element that is read.
        num_heads: of each block.
        cell: greatest side of a cell of attention.
        expansion: of the dense layers.

    Raises:
        ValueError: the patches do not tile the image.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        patch: int,
        width: int,
        depths: Sequence[int],
        num_heads: int,
        cell: int,
        expansion: int,
    ) -> None:
        super().__init__()
        if shape[-1] % (patch * 2 ** (len(depths) - 1)):
            raise ValueError(f"patches of {patch * 2 ** (len(depths) - 1)} px do not tile {shape[-1]} px")
        embeddings, stages = [], []
        self.patch, self.side = patch, shape[-1] // patch
        for index, depth in enumerate(depths):
            side, own = self.side // 2**index, width * 2 ** max(0, index - 1)
            embeddings.append(nn.Sequential(_linear(shape[0] * (patch * 2**index) ** 2, own), Places(side, own)))
            blocks = [
                Block(width * 2**index, side=side, num_heads=num_heads, cell=cell, expansion=expansion)
                for _ in range(depth)
            ]
            stages.append(nn.Sequential(*blocks))
        self.embeddings = cast("Sequence[nn.Module]", nn.ModuleList(embeddings))
        self.stages = cast("Sequence[nn.Module]", nn.ModuleList(stages))
        last = width * 2 ** (len(depths) - 1)
        self.reader = nn.Parameter(torch.randn(last) * PLACES_STD)
        self.last = ReadingBlock(last, num_heads=num_heads, expansion=expansion)
        self.score = _linear(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score."""
        h = self.stages[0](self._patches(x, 0))
        for index in range(1, len(self.stages)):
            pooled = _as_elements(F.avg_pool2d(_as_grid(h, self.side // 2 ** (index - 1)), 2))
            h = self.stages[index](torch.cat([pooled, self._patches(x, index)], dim=2))
        read = self.last(torch.cat([self.reader.expand(len(h), 1, -1), h], dim=1))[:, 0]
        scores: Tensor = self.score(pixel_norm(read))
        return scores.flatten()

    def _patches(self, x: Tensor, index: int) -> Tensor:
        """Embedded patches of a stage: (B, s^2, own)."""
        patches: Tensor = self.embeddings[index](_as_elements(F.pixel_unshuffle(x, self.patch * 2**index)))
        return patches


class ReadingBlock(nn.Module):
    """A `Block` over elements of which the first has no place: no biases of offsets."""

    def __init__(self, width: int, *, num_heads: int, expansion: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.out = _linear(width, 3 * width), _linear(width, width)
        self.wide, self.narrow = _linear(width, expansion * width), _linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map elements (B, L, C)."""
        q, k, v = self.qkv(pixel_norm(x)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        seen = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.out((seen @ v).transpose(1, 2).flatten(2))
        dense: Tensor = self.narrow(F.gelu(self.wide(pixel_norm(x))))
        return x + dense


def offsets_within(cell: int) -> Tensor:
    """Number of the offset between places i and j of a cell in raster order: (s^2, s^2), 0 .. (2 s - 1)^2 - 1."""
    row, column = torch.meshgrid(torch.arange(cell), torch.arange(cell), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], dim=1)
    apart = places[:, None] - places[None] + cell - 1  # (s^2, s^2, 2), none negative
    return apart[..., 0] * (2 * cell - 1) + apart[..., 1]


def to_cells(x: Tensor, *, side: int, cell: int) -> Tensor:
    """A grid in raster order (B, side^2, C) as its cells, each in raster order: (B cells, cell^2, C)."""
    if cell == side:
        return x
    n = side // cell
    split = x.unflatten(1, (n, cell, n, cell)).transpose(2, 3)  # (B, n, n, cell, cell, C)
    cells: Tensor = split.flatten(3, 4).flatten(0, 2)
    return cells


def from_cells(x: Tensor, *, side: int, cell: int) -> Tensor:
    """The reverse of `to_cells`."""
    if cell == side:
        return x
    n = side // cell
    split = x.unflatten(1, (cell, cell)).unflatten(0, (-1, n, n))  # (B, n, n, cell, cell, C)
    together: Tensor = split.transpose(2, 3).flatten(1, 4)
    return together


def _as_grid(x: Tensor, side: int) -> Tensor:
    """(B, s^2, C) to (B, C, s, s)."""
    grid: Tensor = x.transpose(1, 2).unflatten(2, (side, side))
    return grid


def _as_elements(x: Tensor) -> Tensor:
    """(B, C, s, s) to (B, s^2, C)."""
    return x.flatten(2).transpose(1, 2)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
