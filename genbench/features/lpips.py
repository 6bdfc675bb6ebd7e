"""Learned perceptual distance of pictures, and the vectors whose squared distance it is.

Title: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric; Zhang et al. 2018, arXiv:1801.03924,
version 0.1 of the authors' weights. Activations of a classifier, of unit length at each position, are compared channel
by channel (Eq. 1):

    d(x, y) = sum_l 1 / (H_l W_l) sum_hw sum_c w_lc (a_l(x)_chw - a_l(y)_chw)^2

so d is the squared Euclidean distance of the vectors sqrt(w_lc / (H_l W_l)) a_l(x)_chw, which `forward` gives.

Pictures are compared at their own size: there is no resize, and distances at two sizes are two numbers. They come in as
uint8 and are scaled to [-1, 1] here, so a wrong range cannot be given.

Departures: none.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torchvision import models

from genbench.core.errors import DataError, SampleError
from genbench.core.features import FeatureExtractor, PerceptualDistance, register_features
from genbench.core.ranges import Count
from genbench.core.spec import Scalar
from genbench.features._float32 import require_pictures, without_tf32
from genbench.features._weights import digest, fill, find_weights, load_state

Net = Literal["alex", "vgg", "squeeze"]

UNIT_LENGTH_TINY = 1e-10
"""Added to a length, outside the root, as the authors' code does."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation of ImageNet in [-1, 1]; version 0.0 lacks them."""


@dataclass(frozen=True)
class Backbone:
    """A classifier of torchvision and where it is tapped."""

    filename: str
    """Published name; the digits before the suffix begin its SHA-256."""
    taps: tuple[int, ...]
    """Index of the last layer before each tap, in `features`."""
    channels: tuple[int, ...]
    """Of each tap."""
    least_side: int
    """Pixels below which a pooling layer has nothing left."""

    @property
    def url(self) -> str:
        """Where torchvision publishes it."""
        return f"https://download.pytorch.org/models/{self.filename}"


BACKBONES: dict[Net, Backbone] = {
    "alex": Backbone("alexnet-owt-7be5be79.pth", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    "vgg": Backbone("vgg16-397923af.pth", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
    "squeeze": Backbone("squeezenet1_1-b8a52dc0.pth", (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512), 17),
}


@register_features("lpips")
class LPIPS(FeatureExtractor, PerceptualDistance):
    """Backbone and linear heads, frozen.

    Raises:
        DataError: weights are missing, or those of another network.
    """

    source: ClassVar[str] = "Zhang et al. 2018, arXiv:1801.03924; heads in the package lpips, BSD-2-Clause"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which backbone and which weights."""

        net: Net = "alex"
        """Backbone: `alex` is the authors' choice for evaluation, `vgg` for training losses."""
        weights: str = ""
        """torchvision's file, a saved `lpips.LPIPS` (whose heads are then used), or a folder with one; empty to look in
        GENBENCH_WEIGHTS and to download."""
        resolution: Count = 64
        """Pixels per side for which `num_features` counts; pictures of any size are taken."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self._config = self.Config() if config is None else config
        backbone = BACKBONES[self._config.net]
        path = find_weights(
            "lpips",
            given=self._config.weights,
            filenames=(backbone.filename,),
            url=backbone.url,
            sha256=re.split("[-.]", backbone.filename)[-2],
        )
        state = load_state("lpips", path)
        self.backbone = _layers(self._config.net)
        fill(self.backbone, _of_backbone(state, backbone), owner=f"lpips[net={self._config.net}]", path=path)
        heads, heads_path = (state, path) if "lin0.model.1.weight" in state else _shipped_heads(self._config.net)
        self.heads = nn.ParameterList(_checked_heads(heads, heads_path, backbone))
        self._sha256, self._heads_sha256 = digest(path), digest(heads_path)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    @functools.cached_property
    def num_features(self) -> int:
        """Length of a vector for pictures of `resolution` pixels."""
        side = self._config.resolution
        blank = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=self.heads[0].device)
        return sum(activations.numel() for activations in self._activations(blank))

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, net, version, digests of backbone and heads, resizing and precision."""
        return {
            "extractor": "lpips",
            "net": self._config.net,
            "version": "0.1",
            "sha256": self._sha256[:16],
            "heads_sha256": self._heads_sha256[:16],
            "resize": "none",
            "dtype": "float32",
        }

    @property
    def least_side(self) -> int:
        """Pixels per side that the backbone's strides need."""
        return BACKBONES[self._config.net].least_side

    def forward(self, images: Tensor) -> Tensor:
        """Vectors of (N, 3, H, W) uint8 images with values 0 .. 255: (N, F) float32; F grows with H W.

        The squared Euclidean distance of two of them is the perceptual distance of their images.

        Raises:
            SampleError: the images are too small for the backbone.
        """
        weighted = [
            (activations * (head / activations[0, 0].numel()).sqrt()).flatten(1)
            for activations, head in zip(self._activations(images), self.heads, strict=True)
        ]
        return torch.cat(weighted, dim=1)

    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of (N, 3, H, W) uint8 images with values 0 .. 255: (N,) float32, not negative.

        Raises:
            SampleError: the images are too small for the backbone.
        """
        return self._distances(self._activations(first), self._activations(second))

    def signed_distances(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of (N, 3, H, W) float images in [-1, 1], with gradients to both: (N,) float32.

        Raises:
            SampleError: the images are too small for the backbone.
        """
        return self._distances(self._activations_of_signed(first), self._activations_of_signed(second))

    def _distances(self, first: Iterator[Tensor], second: Iterator[Tensor]) -> Tensor:
        """Eq. 1 of activations, tap by tap: (N,)."""
        total = torch.zeros((), device=self.shift.device)
        for a, b, head in zip(first, second, self.heads, strict=True):
            total = total + ((a - b).square() * head).sum(dim=1).mean(dim=(1, 2))
        return total

    def _activations(self, images: Tensor) -> Iterator[Tensor]:
        """Activations of unit length at each position, tap by tap: (N, C, H, W) each."""
        require_pictures(images, owner="lpips")
        return self._activations_of_signed(images.float() / 127.5 - 1.0)

    def _activations_of_signed(self, images: Tensor) -> Iterator[Tensor]:
        """The same of float images in [-1, 1]."""
        backbone = BACKBONES[self._config.net]
        if min(images.shape[-2:]) < backbone.least_side:
            raise SampleError(
                f"lpips with net `{self._config.net}` needs images of at least {backbone.least_side} pixels per side, "
                f"found {images.shape[-2]} x {images.shape[-1]}",
                hint="`vgg` reads the smallest, down to 16 pixels",
            )
        x = (images - self.shift) / self.scale
        for index, layer in enumerate(cast("Sequence[nn.Module]", self.backbone)):
            with without_tf32(x.device):
                x = layer(x)
            if index in backbone.taps:
                yield x / (x.square().sum(dim=1, keepdim=True).sqrt() + UNIT_LENGTH_TINY)


def _layers(net: Net) -> nn.Sequential:
    """The backbone as far as it is tapped, on the `meta` device."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # initialisers have nothing to do on this device, and say so
        network = {"alex": models.alexnet, "vgg": models.vgg16, "squeeze": models.squeezenet1_1}[net](weights=None)
    return cast("nn.Sequential", network.features[: BACKBONES[net].taps[-1] + 1])


def _of_backbone(state: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Tensors of the layers that are tapped, from torchvision's file or that of a saved `lpips.LPIPS`."""
    last, kept = backbone.taps[-1], {}
    for name, value in state.items():
        match = re.fullmatch(r"(?:features|net\.slice\d+)\.(\d+)\.(.+)", name)
        if match is not None and int(match[1]) <= last:
            kept[f"{match[1]}.{match[2]}"] = value
    return kept


def _shipped_heads(net: Net) -> tuple[dict[str, Tensor], Path]:
    """Linear heads of version 0.1 in the installed package `lpips`, found without importing it."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the package `lpips`, which holds the linear heads, is not there", hint="pip install lpips")
    path = Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"
    return load_state("lpips", path), path


def _checked_heads(state: dict[str, Tensor], path: Path, backbone: Backbone) -> list[Tensor]:
    """Weight of each channel, tap by tap: (C, 1, 1) float32."""
    heads = []
    for index, channels in enumerate(backbone.channels):
        head = state.get(f"lin{index}.model.1.weight")
        if head is None or head.shape != (1, channels, 1, 1):
            found = "none" if head is None else str(tuple(head.shape))
            raise DataError(
                f"{path}: not the heads of `lpips`: head {index} is {found}, expected (1, {channels}, 1, 1)"
            )
        if not (head >= 0.0).all():
            raise DataError(f"{path}: head {index} of `lpips` has negative weights, which give no distance")
        heads.append(head[0].float())
    return heads
