"""VGG16's second fully connected layer after its ReLU, 4096 numbers: what precision and recall were defined on.

Kynkaanniemi et al. 2019, arXiv:1904.06991, Sec. 2: an ImageNet classifier that sees 224 pixels. The weights
are torchvision's and the resize is TensorFlow 1's bilinear, as in torch-fidelity's `fc2_relu`; the authors'
own file is a conversion of another training, so features differ from theirs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import vgg16

from genbench.core.features import FeatureExtractor, register_features
from genbench.core.spec import Scalar
from genbench.features._float32 import require_pictures, without_tf32
from genbench.features._resize import DESCRIBED, Resize, resize
from genbench.features._weights import digest, fill, find_weights, load_state

SIDE = 224
NUM_FEATURES = 4096
CLASSIFIER_TAIL = (6, 5, 4)  # classes, dropout, and the ReLU that `forward` calls itself
URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
FILENAMES = ("vgg16-397923af.pth",)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in [0, 1], as torchvision trained it
CPU_CHUNK = 8  # images; bounds the activations that wait in memory (103 MB at the first layer)


@register_features("vgg16")
class VGG16(FeatureExtractor):
    """The network with weights from a file.

    Raises:
        DataError: the weights are missing or damaged.
    """

    source: ClassVar[str] = f"Simonyan and Zisserman 2015, arXiv:1409.1556; torchvision's weights, BSD-3-Clause: {URL}"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which weights, which preprocessing, which arithmetic; each is part of the protocol."""

        weights: str = ""
        """A file, or a folder that holds it; empty: `GENBENCH_WEIGHTS`, the cache, a download."""
        resize: Resize = "tf1"
        """`tf1` as torch-fidelity and StyleGAN; `clean` and `legacy` as for `inception_v3`."""
        arithmetic: Literal["fast", "exact"] = "exact"
        """`exact`: float32 throughout, no TF32. `fast`: channels last, float16 on a GPU."""
        dtype: Literal["float32", "float64"] = "float32"
        """What the network computes in and returns."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config
        path = find_weights("vgg16", given=self.config.weights, filenames=FILENAMES, url=URL, sha256=SHA256)
        self._sha256 = digest(path)
        with torch.device("meta"):
            self.network = vgg16(weights=None, init_weights=False)
        fill(self.network, load_state("vgg16", path), owner="vgg16", path=path)
        for layer in CLASSIFIER_TAIL:
            del self.network.classifier[layer]
        self._dtype = {"float32": torch.float32, "float64": torch.float64}[self.config.dtype]
        self.register_buffer("mean", torch.tensor(MEAN, dtype=torch.float64)[:, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD, dtype=torch.float64)[:, None, None] * 255, persistent=False)
        self.to(self._dtype)
        self.eval().requires_grad_(False)
        if self.config.arithmetic == "fast":
            self.network.to(memory_format=torch.channels_last)

    @property
    def num_features(self) -> int:
        """4096."""
        return NUM_FEATURES

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, layer, digest of its weights, resizing, quantisation, precision and arithmetic."""
        return {
            "extractor": "vgg16",
            "layer": "fc2 after ReLU",
            "sha256": self._sha256[:16],
            "resize": f"{DESCRIBED[self.config.resize]}, to {SIDE}",
            "quantisation": "uint8",
            "dtype": self.config.dtype,
            "arithmetic": "fast, float16" if self._halved(self.mean.device) else self.config.arithmetic,
        }

    def forward(self, images: Tensor) -> Tensor:
        """Features of (N, 3, H, W) uint8 images with values 0 .. 255: (N, 4096), none negative.

        They are float32, or float64 under that setting.

        Raises:
            ValueError: images are not (N, 3, H, W) uint8.
        """
        require_pictures(images, owner="vgg16")
        chunks = images.split(CPU_CHUNK if images.device.type == "cpu" else max(1, len(images)))
        return torch.cat([self._features(chunk) for chunk in chunks])

    def _features(self, images: Tensor) -> Tensor:
        x = resize(images, SIDE, how=self.config.resize, dtype=self._dtype).sub_(self.mean).div_(self.std)
        if self.config.arithmetic == "fast":
            x = x.contiguous(memory_format=torch.channels_last)
        with self._precision(x.device):
            x = self.network.avgpool(self.network.features(x)).flatten(1)  # (N, 25088)
            x = self._classifier(x)
        return F.relu(x.to(self._dtype))

    def _classifier(self, x: Tensor) -> Tensor:
        """Two linear layers, always on `CPU_CHUNK` rows on the CPU: a matrix product rounds by its size.

        Reading their 480 MB of weights is most of their cost, so the empty rows cost nothing.
        """
        rows = len(x)
        if x.device.type == "cpu":
            x = F.pad(x, (0, 0, 0, CPU_CHUNK - rows))
        x = self.network.classifier(x)
        return x[:rows]

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast("cuda", dtype=torch.float16) if self._halved(device) else without_tf32(device)

    def _halved(self, device: torch.device) -> bool:
        return device.type == "cuda" and self.config.arithmetic == "fast" and self._dtype == torch.float32
