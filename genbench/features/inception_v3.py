"""Inception-v3 of December 2015: the features, spatial features and logits that FID, sFID and IS are defined on.

`features` are the 2048 means over positions of the last convolution (`pool_3:0` of the graph, Heusel et
al. 2017, arXiv:1706.08500). `spatial` are the first 7 channels of `mixed_6/conv:0`, 17 x 17 x 7 = 2023
numbers with the channel fastest (sFID: Nash et al. 2021, arXiv:2103.03841, as ADM's evaluator takes them).
The graph counts its blocks from `mixed` (= Mixed_5b), so `mixed_6` is Mixed_6d, and `conv`, the
rectified output of the block's first branch, is Mixed_6d.branch1x1; not Mixed_6e, which ports have taken.
`logits` are the 1008 without the bias of the last layer, which the Inception score leaves out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.features import FeatureExtractor, register_features
from genbench.core.spec import Scalar
from genbench.features._float32 import require_pictures, without_tf32
from genbench.features._inception_network import (
    NUM_FEATURES,
    InceptionNetwork,
    fold_normalisation,
    make_independent_of_threads,
)
from genbench.features._resize import DESCRIBED, Resize, resize
from genbench.features._weights import digest, fill, find_weights, load_state

SIDE = 299
URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILENAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
"""torch-fidelity's name and pytorch-fid's: one file."""
CPU_CHUNK = 4  # images; their activations stay in the cache: measured 1.16x the speed of a chunk of 16


@register_features("inception_v3")
class InceptionV3(FeatureExtractor):
    """The network with weights from a file.

    Raises:
        DataError: the weights are missing or damaged.
    """

    source: ClassVar[str] = f"TensorFlow's `inception-2015-12-05`, Apache-2.0, converted by torch-fidelity: {URL}"
    layers: ClassVar[tuple[str, ...]] = ("features", "spatial", "logits")

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which weights, which preprocessing, which arithmetic; each is part of the protocol."""

        weights: str = ""
        """A file, or a folder that holds it; empty: `GENBENCH_WEIGHTS`, the cache, a download."""
        resize: Resize = "tf1"
        """`tf1` as FID was defined, `clean` as clean-fid, `legacy` as pytorch-fid."""
        arithmetic: Literal["fast", "exact"] = "exact"
        """`exact`: layer by layer, no TF32. `fast`: BatchNorm folded, channels last, float16 on a GPU, whose
        rounding moves a Frechet distance by one or two parts in a thousand."""
        dtype: Literal["float32", "float64"] = "float32"
        """What the network computes in and returns."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config
        path = find_weights("inception_v3", given=self.config.weights, filenames=FILENAMES, url=URL, sha256=SHA256)
        self._sha256 = digest(path)
        with torch.device("meta"):
            self.network = InceptionNetwork()
        fill(self.network, load_state("inception_v3", path), owner="inception_v3", path=path)
        self.eval().requires_grad_(False)
        if self.config.arithmetic == "fast":
            fold_normalisation(self.network)
            self.to(memory_format=torch.channels_last)
        else:
            make_independent_of_threads(self.network)
        self._dtype = {"float32": torch.float32, "float64": torch.float64}[self.config.dtype]
        self.to(self._dtype)

    @property
    def num_features(self) -> int:
        """2048."""
        return NUM_FEATURES

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, digest of its weights, resizing, quantisation, precision and arithmetic."""
        halved = self._halved(self.network.fc.weight.device)
        return {
            "extractor": "inception_v3",
            "sha256": self._sha256[:16],
            "resize": f"{DESCRIBED[self.config.resize]}, to {SIDE}",
            "quantisation": "uint8",
            "dtype": self.config.dtype,
            "arithmetic": "fast, float16 convolutions" if halved else self.config.arithmetic,
        }

    def forward(self, images: Tensor) -> Tensor:
        """Features of (N, 3, H, W) uint8 images with values 0 .. 255: (N, 2048), none negative."""
        return self.outputs(images, ("features",))["features"]

    def outputs(self, images: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """Layers from one pass that ends with the last one wanted: (N, 2048), (N, 2023) or (N, 1008) each.

        They are float32, or float64 under that setting.

        Raises:
            ValueError: images are not (N, 3, H, W) uint8, or a layer is unknown.
        """
        require_pictures(images, owner="inception_v3")
        if not layers or not set(layers) <= set(self.layers):
            raise ValueError(f"`inception_v3` has the layers {', '.join(self.layers)}, asked for {layers}")
        num_chunks = -(-len(images) // CPU_CHUNK) if images.device.type == "cpu" else 1
        chunks = images.tensor_split(max(1, num_chunks))
        made = [self._layers(chunk, layers) for chunk in chunks]
        return {layer: torch.cat([part[layer] for part in made]) for layer in layers}

    def _layers(self, images: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        x = self._prepared(images)
        with self._precision(x.device):
            if set(layers) == {"spatial"}:
                return {"spatial": self.network.spatial(x).to(self._dtype)}
            spatial, last = self.network(x)
        made = {"spatial": spatial.to(self._dtype), "features": self.network.pooled(last)}
        if "logits" in layers:
            made["logits"] = self.network.logits(made["features"])
        return made

    def _prepared(self, images: Tensor) -> Tensor:
        """What the network sees: (N, 3, 299, 299), about [-1, 1]."""
        x = resize(images, SIDE, how=self.config.resize, dtype=self._dtype)
        if self.config.resize == "legacy":
            return x.mul_(2 / 255).sub_(1)  # pytorch-fid's; [-1, 1]
        x = x.sub_(128).mul_(1 / 128)  # the graph's; a power of two, so only the difference is rounded
        return x.contiguous(memory_format=torch.channels_last) if self.config.arithmetic == "fast" else x

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Float16 convolutions where the protocol says so; no silent TF32 where it says exact."""
        if self._halved(device):
            return torch.autocast("cuda", dtype=torch.float16)
        return without_tf32(device)

    def _halved(self, device: torch.device) -> bool:
        return device.type == "cuda" and self.config.arithmetic == "fast" and self._dtype == torch.float32
