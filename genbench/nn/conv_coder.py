"""Convolutional or dense encoder and decoder of a variational autoencoder.

The encoder gives the moments of q(z|x) = N(mu, sigma^2), the decoder the parameters of p(x|z) for every pixel. Three
kinds of network stand between image and code: residual towers (`residual_encoder`, `residual_decoder`) that train in
minutes on a CPU; the strided convolutions (`strided_encoder`, `strided_decoder`) that Higgins et al. (2017,
openreview Sy2fzU9gl, Table 1) and most work on disentanglement since have shared; and, without a convolution, two
hidden layers of tanh units either way (`dense_encoder`, `dense_decoder`), as Burda et al. (2015, 1509.00519, Sec. 5.1)
train on MNIST.

Shapes: images (B, C, H, W), codes (B, D).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from genbench.nn.resnet import DownTower, UpTower, halved_sides, halvings_until

SMALLEST_SIDE = 4  # a dense layer joins the code to a grid no larger than this
NARROW_GRIDS = 2  # the first two grids of the strided networks have `width` channels, the others twice as many


class Encoder(nn.Module):
    """q(z|x): images in [-1, 1] to mu and log_sigma, (B, D) each.

    Args:
        tower: images to any shape of features.
        head: flat features to (B, 2 D).
    """

    def __init__(self, tower: nn.Module, *, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of the posterior."""
        mu, log_sigma = self.head(self.tower(x).flatten(1)).float().chunk(2, dim=1)
        return mu, log_sigma


class Decoder(nn.Module):
    """p(x|z): codes to what a distribution of every pixel is read from.

    The scales are parameters of their own, the same for all pixels. Were they outputs for each pixel, the
    network would at first call every object noise: a wide scale there costs little and stops the gradient
    that would have taught it to draw the object.

    Args:
        stem: codes to flat features.
        tower: features on the grid to (B, outputs, H, W).
        grid: channels and sides of the features between the two.
        initial_scale: where the scales start; any shape.
    """

    def __init__(self, stem: nn.Module, *, tower: nn.Module, grid: Sequence[int], initial_scale: Tensor) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.stem, self.tower = stem, tower
        self.scale: Tensor
        if initial_scale.numel():
            self.scale = nn.Parameter(initial_scale)
        else:  # a distribution without scales
            self.register_buffer("scale", initial_scale, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs for every pixel, (B, outputs, H, W), and the scales they share."""
        return self.tower(self.stem(z).unflatten(1, self.grid)), self.scale


class StridedDown(nn.Sequential):
    """Image (B, in, side, side) to features after the activation: 4 x 4 convolutions with stride 2, each with ReLU."""

    def __init__(self, num_channels: int, *, width: int, num_halvings: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise([num_channels, *_strided_widths(width, num_halvings)]):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
        super().__init__(*layers)


class StridedUp(nn.Sequential):
    """The transpose of `StridedDown`: features before the activation to (B, out, side, side)."""

    def __init__(self, num_channels: int, *, side: int, width: int, num_halvings: int) -> None:
        layers: list[nn.Module] = []
        widths = [num_channels, *_strided_widths(width, num_halvings)]
        for level in reversed(range(num_halvings)):
            odd = (side >> level) % 2  # a row that the convolution down has dropped
            layers += [nn.ReLU(), nn.ConvTranspose2d(widths[level + 1], widths[level], 4, 2, 1, output_padding=odd)]
        super().__init__(*layers)


def residual_encoder(shape: Sequence[int], *, width: int, num_blocks: int, hidden: int, latent_dim: int) -> Encoder:
    """Encoder of images `shape` = (C, side, side) by a `DownTower` and one hidden dense layer.

    Args:
        shape: of one image.
        width: channels of every grid.
        num_blocks: residual blocks on each grid.
        hidden: units of the dense layer.
        latent_dim: D.
    """
    num_halvings = halvings_until(shape[-1], SMALLEST_SIDE)
    tower = DownTower(shape[0], width, num_halvings=num_halvings, num_blocks=num_blocks)
    num_features = width * halved_sides(shape[-1], num_halvings)[-1] ** 2
    return Encoder(tower, head=dense(num_features, hidden, 2 * latent_dim))


def residual_decoder(
    shape: Sequence[int],
    *,
    width: int,
    num_blocks: int,
    hidden: int,
    latent_dim: int,
    num_outputs: int,
    initial_scale: Tensor,
) -> Decoder:
    """Decoder by two hidden dense layers and an `UpTower`, with `num_outputs` for every pixel."""
    num_halvings = halvings_until(shape[-1], SMALLEST_SIDE)
    grid = (width, *[halved_sides(shape[-1], num_halvings)[-1]] * 2)
    stem = dense(latent_dim, hidden, hidden, math.prod(grid))
    tower = UpTower(width, num_outputs, shape[-1], num_halvings=num_halvings, num_blocks=num_blocks)
    return Decoder(stem, tower=tower, grid=grid, initial_scale=initial_scale)


def strided_encoder(shape: Sequence[int], *, width: int, hidden: int, latent_dim: int) -> Encoder:
    """Encoder of images `shape` = (C, side, side) by strided convolutions and one hidden dense layer.

    At 64 px and a width of 32 the convolutions have 32, 32, 64 and 64 channels, as in the papers.

    Args:
        shape: of one image.
        width: channels of the two largest grids; the smaller ones have twice as many.
        hidden: units of the dense layer.
        latent_dim: D.
    """
    num_halvings = _strided_halvings(shape[-1])
    tower = StridedDown(shape[0], width=width, num_halvings=num_halvings)
    num_features = math.prod(_strided_grid(shape[-1], width, num_halvings))
    return Encoder(tower, head=dense(num_features, hidden, 2 * latent_dim, activation=nn.ReLU))


def strided_decoder(
    shape: Sequence[int], *, width: int, hidden: int, latent_dim: int, num_outputs: int, initial_scale: Tensor
) -> Decoder:
    """Decoder that mirrors `strided_encoder`, with `num_outputs` for every pixel."""
    num_halvings = _strided_halvings(shape[-1])
    grid = _strided_grid(shape[-1], width, num_halvings)
    stem = dense(latent_dim, hidden, math.prod(grid), activation=nn.ReLU)
    tower = StridedUp(num_outputs, side=shape[-1], width=width, num_halvings=num_halvings)
    return Decoder(stem, tower=tower, grid=grid, initial_scale=initial_scale)


class UnitRange(nn.Module):
    """Pixels in [-1, 1] to [0, 1], where a dark background is zero and not a bias of hundreds of inputs.

    At -1 every step of Adam moves the weights of all background pixels the same way, and the tanh units are saturated
    within an epoch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale; any shape."""
        return 0.5 * (x + 1.0)


def dense_encoder(shape: Sequence[int], *, hidden: int, latent_dim: int) -> Encoder:
    """Encoder of images `shape` = (C, H, W) by two dense layers of `hidden` tanh units."""
    return Encoder(UnitRange(), head=tanh_layers(math.prod(shape), hidden, hidden, 2 * latent_dim))


def dense_decoder(
    shape: Sequence[int], *, hidden: int, latent_dim: int, num_outputs: int, initial_scale: Tensor
) -> Decoder:
    """Decoder by two dense layers of `hidden` tanh units, with `num_outputs` for every pixel."""
    grid = (num_outputs, *shape[1:])
    stem = tanh_layers(latent_dim, hidden, hidden, math.prod(grid))
    return Decoder(stem, tower=nn.Identity(), grid=grid, initial_scale=initial_scale)


def networks(
    kind: Literal["residual", "strided", "dense"],
    shape: Sequence[int],
    *,
    width: int,
    num_blocks: int,
    hidden: int,
    latent_dim: int,
    num_outputs: int,
    initial_scale: Tensor,
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of any kind; `num_blocks` is of the residual ones only, `width` not of the dense ones."""
    if kind == "dense":
        encoder = dense_encoder(shape, hidden=hidden, latent_dim=latent_dim)
        return encoder, dense_decoder(
            shape, hidden=hidden, latent_dim=latent_dim, num_outputs=num_outputs, initial_scale=initial_scale
        )
    sizes = {"width": width, "hidden": hidden, "latent_dim": latent_dim}
    if kind == "strided":
        encoder = strided_encoder(shape, **sizes)
        return encoder, strided_decoder(shape, **sizes, num_outputs=num_outputs, initial_scale=initial_scale)
    sizes["num_blocks"] = num_blocks
    encoder = residual_encoder(shape, **sizes)
    return encoder, residual_decoder(shape, **sizes, num_outputs=num_outputs, initial_scale=initial_scale)


def dense(*sizes: int, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """Dense layers with activations between, whose weights keep the variance of what passes (He et al., 2015)."""
    layers: list[nn.Module] = []
    for num_inputs, num_outputs in itertools.pairwise(sizes):
        layer = nn.Linear(num_inputs, num_outputs)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def tanh_layers(*sizes: int) -> nn.Sequential:
    """Dense layers with tanh between, started as Glorot and Bengio (2010) do."""
    layers: list[nn.Module] = []
    for num_inputs, num_outputs in itertools.pairwise(sizes):
        layer = nn.Linear(num_inputs, num_outputs)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _strided_halvings(side: int) -> int:
    """Halvings, rounded down and at least one, after which the side is no longer above `SMALLEST_SIDE`."""
    num_halvings = 1
    while side >> num_halvings > SMALLEST_SIDE:
        num_halvings += 1
    return num_halvings


def _strided_widths(width: int, num_halvings: int) -> list[int]:
    return [width if level < NARROW_GRIDS else 2 * width for level in range(num_halvings)]


def _strided_grid(side: int, width: int, num_halvings: int) -> tuple[int, int, int]:
    smallest = side >> num_halvings
    return _strided_widths(width, num_halvings)[-1], smallest, smallest
