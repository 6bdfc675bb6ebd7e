"""Small convolutional network that reads the factors of `shapes`: features and ground truth offline.

Trained by `genbench features train shapes_net` on the dataset `shapes` at 8, 16, 32 and 64 pixels to
name every factor, to be unsure of pictures that are none of its kind (outlier exposure, Hendrycks et
al. 2019, arXiv:1812.04606), and to tell how badly a picture is damaged, so that damage is far from
real data in feature space. The features are the 64 activations before the last layer, scaled to
variance 1 in the mean over features of real pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Factor
from genbench.core.features import FactorPredictions, FactorReader, FeatureExtractor, register_features
from genbench.core.spec import Scalar
from genbench.features._factor_reading import described, predictions

SHIPPED = Path(__file__).parent / "weights" / "shapes_net.safetensors"
SIDE = 32
"""Pixels per side that the network sees; other sizes are resized."""
NUM_FEATURES = 64
RESIZE = "bilinear, half-pixel centres, no antialiasing, to 32"


class ShapesNetwork(nn.Module):
    """Five convolutions, a linear layer that keeps position apart, and one linear reader of all factors.

    Args:
        num_values: number of values of each factor.
    """

    def __init__(self, num_values: tuple[int, ...]) -> None:
        super().__init__()
        self.num_values = num_values
        self.convolutions = nn.Sequential(
            *_convolution(3, 24, kernel=5, stride=2),  # 16 x 16
            *_convolution(24, 48, kernel=3, stride=2),  # 8 x 8
            *_convolution(48, 64, kernel=3, stride=1),
            *_convolution(64, 64, kernel=3, stride=1),
            *_convolution(64, 96, kernel=3, stride=2),  # 4 x 4
        )
        self.features = nn.Linear(96 * 4 * 4, NUM_FEATURES)
        self.reader = nn.Linear(NUM_FEATURES, sum(num_values))

    def forward(self, images: Tensor) -> Tensor:
        """Features of images (N, 3, H, W) with values 0 .. 255: (N, 64), none negative."""
        x = images.float() / 127.5 - 1.0
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
        return F.relu(self.features(self.convolutions(x).flatten(1)))

    def logits(self, features: Tensor) -> tuple[Tensor, ...]:
        """Unnormalised log-probabilities of the values of each factor: (N, number of values) each."""
        together: Tensor = self.reader(features)
        return torch.split_with_sizes(together, list(self.num_values), dim=1)


def _convolution(in_channels: int, out_channels: int, *, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


@register_features("shapes_net")
class ShapesNet(FeatureExtractor, FactorReader):
    """The trained network, frozen.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """

    source: ClassVar[str] = "trained by `genbench features train shapes_net` on `shapes`; ships with genbench"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which weights."""

        weights: str = ""
        """Path of a safetensors file with its JSON beside it; empty for the shipped one."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        given = "" if config is None else config.weights
        path = Path(given).expanduser() if given else SHIPPED
        self._factors, self._sha256 = described(path, owner="shapes_net")
        self.network = ShapesNetwork(tuple(len(factor.values) for factor in self._factors))
        self.network.load_state_dict(load_file(path))
        self.eval().requires_grad_(False)

    @property
    def num_features(self) -> int:
        """64."""
        return NUM_FEATURES

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Factors of `shapes`."""
        return self._factors

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, digest of its weights, resizing and precision."""
        return {"extractor": "shapes_net", "sha256": self._sha256[:16], "resize": RESIZE, "dtype": "float32"}

    def forward(self, images: Tensor) -> Tensor:
        """Features of (N, 3, H, W) uint8 images with values 0 .. 255: (N, 64) float32, none negative."""
        features: Tensor = self.network(images)
        return features

    @torch.no_grad()
    def read_factors(self, images: Tensor) -> FactorPredictions:
        """Factors of (N, 3, H, W) uint8 images with values 0 .. 255."""
        return predictions(self.network.logits(self(images)), self.factors)
