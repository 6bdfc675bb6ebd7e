"""The Inception-v3 of December 2015 behind every published FID, assembled from torch-fidelity's blocks.

Those blocks differ from torchvision's as the TensorFlow graph does: average pools do not count padding,
and the last block pools by maximum. Names are those of torch-fidelity's and pytorch-fid's weight files.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import (
    BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE_1,
    InceptionE_2,
)

NUM_FEATURES = 2048
NUM_CLASSES = 1008
SPATIAL_CHANNELS = 7  # Nash et al. 2021, arXiv:2103.03841, Sec. 4: 17 x 17 x 7 = 2023, close to 2048
WIDE = 192  # input channels; measured: sums depend on threads from 768 on one processor, from 192 on another


class InceptionNetwork(nn.Module):
    """From pictures (N, 3, 299, 299) in about [-1, 1] to the layers that metrics read."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE_1(1280)
        self.Mixed_7c = InceptionE_2(2048)
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spatial features (N, 2023) and the last convolution (N, 2048, 8, 8), from one pass."""
        x = self.Mixed_6d(self._until_6c(x))  # (N, 768, 17, 17); its first 192 channels are branch1x1
        spatial = _spatial(x)
        x = self.Mixed_6e(x)
        x = self.Mixed_7a(x)  # (N, 1280, 8, 8)
        x = self.Mixed_7b(x)  # (N, 2048, 8, 8)
        return spatial, self.Mixed_7c(x)

    def spatial(self, x: Tensor) -> Tensor:
        """Only the spatial features (N, 2023), at four fifths of the cost of all."""
        return _spatial(self.Mixed_6d.branch1x1(self._until_6c(x)))

    def pooled(self, x: Tensor) -> Tensor:
        """Mean over positions of the last convolution, in the precision of the last layer: (N, 2048)."""
        return F.adaptive_avg_pool2d(x.to(self.fc.weight.dtype), 1).flatten(1)

    def logits(self, pooled: Tensor) -> Tensor:
        """Unnormalised log-probabilities without the bias, as the Inception score has them: (N, 1008)."""
        return pooled.mm(self.fc.weight.T)

    def _until_6c(self, x: Tensor) -> Tensor:
        x = self.Conv2d_1a_3x3(x)  # (N, 32, 149, 149)
        x = self.Conv2d_2a_3x3(x)  # (N, 32, 147, 147)
        x = self.Conv2d_2b_3x3(x)  # (N, 64, 147, 147)
        x = F.max_pool2d(x, kernel_size=3, stride=2)  # (N, 64, 73, 73)
        x = self.Conv2d_3b_1x1(x)  # (N, 80, 73, 73)
        x = self.Conv2d_4a_3x3(x)  # (N, 192, 71, 71)
        x = F.max_pool2d(x, kernel_size=3, stride=2)  # (N, 192, 35, 35)
        x = self.Mixed_5b(x)  # (N, 256, 35, 35)
        x = self.Mixed_5c(x)  # (N, 288, 35, 35)
        x = self.Mixed_5d(x)  # (N, 288, 35, 35)
        x = self.Mixed_6a(x)  # (N, 768, 17, 17)
        x = self.Mixed_6b(x)
        result: Tensor = self.Mixed_6c(x)
        return result


def _spatial(x: Tensor) -> Tensor:
    """First seven channels, flattened with the channel fastest as TensorFlow stores them: (N, H*W*7)."""
    return x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)


def fold_normalisation(network: nn.Module) -> None:
    """Multiply each BatchNorm into the convolution before it, in place, once; they are float64 after.

    y = gamma (w*x - mean) / sqrt(var + eps) + beta is a convolution with scaled weights and a bias: the
    same function, with roundings that differ by about 1e-5 of a feature's norm.
    """
    for block in _blocks(network):
        convolution, normalisation = cast("nn.Conv2d", block.conv), cast("nn.BatchNorm2d", block.bn)
        block.conv = fuse_conv_bn_eval(convolution.double().eval(), normalisation.double().eval())
        block.bn = nn.Identity()


class Pointwise(nn.Module):
    """A convolution with a kernel of one pixel, as one matrix product per picture.

    oneDNN splits the sum over 768 and more channels by the number of threads; this product does not, at
    the same speed, so features are the same on every number of threads.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """From (N, in, H, W) to (N, out, H, W)."""
        kernels = self.weight.flatten(1).expand(len(x), -1, -1)
        return torch.bmm(kernels, x.flatten(2)).view(len(x), -1, *x.shape[2:])


def make_independent_of_threads(network: nn.Module) -> None:
    """Replace the convolutions whose sums would depend on the number of threads, in place."""
    for block in _blocks(network):
        convolution = cast("nn.Conv2d", block.conv)
        if convolution.kernel_size == (1, 1) and convolution.in_channels >= WIDE:
            block.conv = Pointwise(cast("nn.Parameter", convolution.weight))


def _blocks(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, BasicConv2d)]
