"""Convolutional encoder and decoder between images and grids of vectors, as autoencoders with discrete codes use them.

Shapes: images (B, C, side, side), grids (B, D, s, s) with s the last of `halved_sides(side, num_halvings)`.
"""

from __future__ import annotations

from torch import Tensor, nn

from genbench.nn.resnet import DownTower, UpTower


class GridEncoder(nn.Module):
    """Features z_e(x) of images in [-1, 1] or of other grids: (B, C, side, side) to (B, D, s, s).

    Args:
        num_channels: C.
        width: channels of every grid.
        num_blocks: residual blocks on each grid.
        num_halvings: at least 1.
        code_dim: D.
    """

    def __init__(self, num_channels: int, *, width: int, num_blocks: int, num_halvings: int, code_dim: int) -> None:
        super().__init__()
        self.tower = DownTower(num_channels, width, num_halvings=num_halvings, num_blocks=num_blocks)
        self.head = nn.Conv2d(width, code_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features before quantisation, float32."""
        features: Tensor = self.head(self.tower(x))
        return features.float()


class GridDecoder(nn.Module):
    """p(x|e_z): grids of code vectors (B, D, s, s) to what a distribution of every pixel is read from.

    The scales are parameters of their own, shared by all pixels, as in `conv_coder.Decoder`.

    Args:
        code_dim: D.
        width: channels of every grid.
        num_outputs: outputs for every pixel.
        side: of the image.
        num_blocks: residual blocks on each grid but the full one.
        num_halvings: at least 1; as many doublings.
        initial_scale: where the scales start; any shape.
    """

    def __init__(
        self,
        code_dim: int,
        *,
        width: int,
        num_outputs: int,
        side: int,
        num_blocks: int,
        num_halvings: int,
        initial_scale: Tensor,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(code_dim, width, 3, padding=1)
        self.tower = UpTower(width, num_outputs, side, num_halvings=num_halvings, num_blocks=num_blocks)
        self.scale = nn.Parameter(initial_scale)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs for every pixel, (B, outputs, side, side), and the scales they share."""
        return self.tower(self.stem(vectors)), self.scale


class GridRise(nn.Module):
    """Vectors on a coarse grid as features on a finer one: (B, D, s, s) to (B, width, side, side).

    Args:
        code_dim: D.
        width: channels of every grid.
        side: of the finer grid.
        num_halvings: between the two, at least 1.
        num_blocks: residual blocks on each grid but the finer one.
    """

    def __init__(self, code_dim: int, width: int, side: int, *, num_halvings: int, num_blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(code_dim, width, 3, padding=1)
        self.tower = UpTower(width, width, side, num_halvings=num_halvings, num_blocks=num_blocks)

    def forward(self, vectors: Tensor) -> Tensor:
        """Features on the finer grid."""
        features: Tensor = self.tower(self.stem(vectors))
        return features
