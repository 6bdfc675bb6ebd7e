"""A generator and a discriminator made of vision transformers, the networks of ViTGAN.

Lee, Chang, Jiang, Zhang, Tu and Liu 2021 (2107.04589). The generator's elements start as learned places; the latent
enters by the normalisations alone (self-modulation), and every element is drawn as a function of the coordinates
within its patch. The discriminator is kept from steep slopes: attention by distances, weights of fixed spectral norm,
patches that overlap.

    SLN(h, z) = gamma(z) * (h - mean) / std + beta(z),  gamma and beta linear in the latent
    L2 attention  softmax(-|q_i - k_j|^2 / sqrt(d)) v  with q = k
    patch(p) = C sin(omega (A sin(W p) + B y)) of its element y

Symbols: `B` images, `L` elements, `w` width, `h` heads, `d` = w / h, `p` coordinates within a patch, `P` side of a
patch, `o` pixels by which a patch reaches over its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn.spectral_linear import SpectralLinear
from genbench.nn.transformer import everything

EPSILON = 1e-6
"""Of the normalisations."""
PLACES_STD = 0.02
"""Of learned places at the start."""


class SelfModulatedNorm(nn.Module):
    """Layer normalisation whose scale and shift are linear in the latent, about 1 and 0.

    Its weights do not start at zero: latents must differ in what is drawn before the discriminator can tell.

    Args:
        width: of what is normalised.
        latent_width: of the latent.
    """

    def __init__(self, width: int, latent_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=EPSILON)
        self.scale, self.shift = nn.Linear(latent_width, width), nn.Linear(latent_width, width)
        for layer in (self.scale, self.shift):
            nn.init.normal_(layer.weight, std=latent_width**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, latent: Tensor) -> Tensor:
        """Normalise (B, L, w) under latents (B, latent_width)."""
        modulated: Tensor = self.norm(h) * (1 + self.scale(latent)[:, None]) + self.shift(latent)[:, None]
        return modulated


class ModulatedBlock(nn.Module):
    """h + attention(SLN(h, z)), then h + dense(SLN(h, z))."""

    def __init__(self, width: int, latent_width: int, *, num_heads: int, expansion: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = SelfModulatedNorm(width, latent_width)
        self.norm2 = SelfModulatedNorm(width, latent_width)
        self.qkv, self.out = _linear(width, 3 * width), _linear(width, width)
        self.wide, self.narrow = _linear(width, expansion * width), _linear(expansion * width, width)

    def forward(self, h: Tensor, latent: Tensor) -> Tensor:
        """Map elements (B, L, w) under latents."""
        q, k, v = self.qkv(self.norm1(h, latent)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        h = h + self.out(everything(q, k, v).transpose(1, 2).flatten(2))
        dense: Tensor = self.narrow(F.gelu(self.wide(self.norm2(h, latent))))
        return h + dense


class PatchPainter(nn.Module):
    """Elements (B, L, w) to patches of pixels (B, L, P^2, C), each a function of the place within the patch.

    Places enter as learned Fourier features, sin(W p), and with the element through one layer of sines (SIREN,
    2006.09661), whose weights start uniform as there.

    Args:
        width: w.
        hidden: units of the layer of sines, and number of Fourier features.
        channels: C.
        patch: P.
        frequency: omega, the factor inside the sines.
    """

    places: Tensor

    def __init__(self, width: int, *, hidden: int, channels: int, patch: int, frequency: float) -> None:
        super().__init__()
        self.frequency = frequency
        axis = (torch.arange(patch) + 0.5) / patch * 2 - 1
        self.register_buffer("places", torch.cartesian_prod(axis, axis), persistent=False)  # (P^2, 2), rows first
        self.waves = nn.Linear(2, hidden)
        nn.init.normal_(self.waves.weight, std=torch.pi)
        nn.init.uniform_(self.waves.bias, -torch.pi, torch.pi)
        self.of_place, self.of_element = nn.Linear(hidden, hidden), nn.Linear(width, hidden, bias=False)
        for layer in (self.of_place, self.of_element):
            bound = (6 / layer.in_features) ** 0.5 / frequency
            nn.init.uniform_(layer.weight, -bound, bound)
        self.colour = _linear(hidden, channels)

    def forward(self, y: Tensor) -> Tensor:
        """Paint."""
        place = self.of_place(torch.sin(self.waves(self.places)))  # (P^2, hidden)
        h = torch.sin(self.frequency * (place + self.of_element(y)[:, :, None]))
        painted: Tensor = self.colour(h)
        return painted


class ViTGenerator(nn.Module):
    """Latents (B, Z) to images (B, C, H, W), unbounded.

    Args:
        shape: (C, H, W) of an image.
        latent_dim: Z.
        patch: P, which divides the side.
        width: w.
        num_layers: blocks.
        num_heads: of each.
        expansion: units of dense layers for each of the width.
        painter_width: units of the layer of sines.
        frequency: omega.

    Raises:
        ValueError: patches do not tile the image.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent_dim: int,
        patch: int,
        width: int,
        num_layers: int,
        num_heads: int,
        expansion: int,
        painter_width: int,
        frequency: float,
    ) -> None:
        super().__init__()
        self.patch, self.side = patch, _tiles(shape, patch)
        self.latent = nn.Sequential(_linear(latent_dim, width), nn.GELU(), _linear(width, width))
        self.places = nn.Parameter(torch.randn(self.side**2, width) * PLACES_STD)
        blocks = [ModulatedBlock(width, width, num_heads=num_heads, expansion=expansion) for _ in range(num_layers)]
        self.blocks = cast("Sequence[ModulatedBlock]", nn.ModuleList(blocks))
        self.norm = SelfModulatedNorm(width, width)
        self.painter = PatchPainter(width, hidden=painter_width, channels=shape[0], patch=patch, frequency=frequency)

    def forward(self, z: Tensor) -> Tensor:
        """Draw (B, C, H, W)."""
        latent = self.latent(z)
        h = self.places.expand(len(z), -1, -1)
        for block in self.blocks:
            h = block(h, latent)
        painted = self.painter(self.norm(h, latent))  # (B, L, P^2, C)
        tiles = painted.permute(0, 3, 2, 1).flatten(1, 2).unflatten(2, (self.side, self.side))  # (B, C P^2, s, s)
        return F.pixel_shuffle(tiles, self.patch)


class L2Attention(nn.Module):
    """Self-attention by distances, with one projection for queries and keys: Lipschitz, as products are not.

    Args:
        width: w; `num_heads` must divide it.
        num_heads: h.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = SpectralLinear(width, width, bias=False)
        self.value = SpectralLinear(width, width, bias=False)
        self.out = SpectralLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map elements (B, L, w)."""
        q, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (self.query(x), self.value(x)))
        mixed: Tensor = self.out((attention_by_distance(q) @ v).transpose(1, 2).flatten(2))
        return mixed


def attention_by_distance(q: Tensor) -> Tensor:
    """Weights (B, h, L, L), rows summing to one, from the squared distances of queries (B, h, L, d), also the keys.

    -|q_i - q_j|^2 = 2 q_i q_j - |q_i|^2 - |q_j|^2, of which the second term is the same along a row and drops out.
    """
    squares = q.square().sum(-1)
    likeness = (2 * q @ q.transpose(2, 3) - squares[:, :, None]) * q.shape[-1] ** -0.5
    weights: Tensor = likeness.softmax(-1)
    return weights


class LipschitzBlock(nn.Module):
    """h + attention(norm(h)), then h + dense(norm(h)), by distances and weights of fixed spectral norm."""

    def __init__(self, width: int, *, num_heads: int, expansion: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPSILON), nn.LayerNorm(width, eps=EPSILON)
        self.attention = L2Attention(width, num_heads=num_heads)
        self.wide, self.narrow = SpectralLinear(width, expansion * width), SpectralLinear(expansion * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map elements (B, L, w)."""
        h = h + self.attention(self.norm1(h))
        dense: Tensor = self.narrow(F.gelu(self.wide(self.norm2(h))))
        return h + dense


class ViTDiscriminator(nn.Module):
    """Images (B, C, H, W) to scores (B,), read off an element of its own.

    Args:
        shape: (C, H, W) of an image.
        patch: P, which divides the side.
        overlap: o.
        width: w.
        num_layers: blocks.
        num_heads: of each.
        expansion: units of dense layers for each of the width.

    Raises:
        ValueError: patches do not tile the image.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        patch: int,
        overlap: int,
        width: int,
        num_layers: int,
        num_heads: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.patch, self.overlap, side = patch, overlap, _tiles(shape, patch)
        self.embed = SpectralLinear(shape[0] * (patch + 2 * overlap) ** 2, width)
        self.reader = nn.Parameter(torch.randn(width) * PLACES_STD)
        self.places = nn.Parameter(torch.randn(side**2, width) * PLACES_STD)
        self.blocks = nn.Sequential(
            *(LipschitzBlock(width, num_heads=num_heads, expansion=expansion) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.score = SpectralLinear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score."""
        h = self.embed(overlapping_patches(x, self.patch, self.overlap)) + self.places
        h = self.blocks(torch.cat([self.reader.expand(len(h), 1, -1), h], dim=1))
        scores: Tensor = self.score(self.norm(h[:, 0]))
        return scores.flatten()


def overlapping_patches(x: Tensor, patch: int, overlap: int) -> Tensor:
    """Patches of side P + 2 o, one about each tile of P pixels, zero beyond the image: (B, L, C (P + 2 o)^2)."""
    return F.unfold(x, patch + 2 * overlap, padding=overlap, stride=patch).transpose(1, 2)


def _tiles(shape: tuple[int, ...], patch: int) -> int:
    """Tiles along a side."""
    if shape[-1] % patch:
        raise ValueError(f"patches of {patch} px do not tile {shape[-1]} px")
    return shape[-1] // patch


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
