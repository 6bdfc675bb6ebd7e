"""DINOv2 vision transformer: class token of pictures, behind the Frechet distance called FD-DINOv2.

Title: DINOv2: Learning Robust Visual Features without Supervision; Oquab et al. 2023, arXiv:2304.07193. Its class
token, after the last normalisation, stands for a picture in Stein et al. 2023, arXiv:2306.04675, who use the large
model: `dinov2[model=vit_large_patch14_dinov2.lvd142m]`, with `resize=pil` as in their code; Karras et al. 2024,
arXiv:2312.02696, resize in floating point, `resize=torch`. The default model is the small one.

The network is timm's. Position embeddings are brought from 37 x 37 patches to 16 x 16 as the original code does it:
bicubic (a = -0.75) without antialiasing, at a scale of (16 + 0.1) / 37.

Departures: none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.core.errors import DataError
from genbench.core.features import FeatureExtractor, register_features
from genbench.core.spec import Scalar
from genbench.features._clip_resize import pillow_bicubic
from genbench.features._float32 import require_pictures, without_tf32
from genbench.features._weights import digest, fill, find_weights, load_state

Model = Literal[
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch14_dinov2.lvd142m",
    "vit_large_patch14_dinov2.lvd142m",
    "vit_giant_patch14_dinov2.lvd142m",
]

SIDE = 224
"""Pixels per side that the network sees."""
PATCHES = 16
"""Per side, 14 pixels wide."""
SCALE_OFFSET = 0.1
"""Added to `PATCHES` by the original code when it scales position embeddings."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
URL = "https://huggingface.co/timm/{model}/resolve/main/model.safetensors"
RESIZES = {
    "torch": "bicubic (a = -0.5), antialiased, not rounded, to 224 x 224",
    "pil": "Pillow bicubic, 8 bits, to 224 x 224",
}


@register_features("dinov2")
class DINOv2(FeatureExtractor):
    """The class token, frozen.

    Raises:
        DataError: the weights are missing, or those of another network.
    """

    source: ClassVar[str] = "Oquab et al. 2023, arXiv:2304.07193; huggingface.co/timm, Apache-2.0"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which network, which weights, and how pictures get to its size."""

        model: Model = "vit_small_patch14_dinov2.lvd142m"
        """timm's name; FD-DINOv2 in print is `vit_large_patch14_dinov2.lvd142m`."""
        weights: str = ""
        """File of timm or of the authors, or a folder with it; empty to look in GENBENCH_WEIGHTS and to download."""
        resize: Literal["torch", "pil"] = "torch"
        """`torch` stays in floating point, as EDM2 evaluates; `pil` rounds to 8 bits, as Stein et al. do."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self._config = self.Config() if config is None else config
        model = self._config.model
        original = f"dinov2_vit{model.split('_')[1][0]}14_pretrain.pth"  # the authors' own file
        path = find_weights(
            "dinov2",
            given=self._config.weights,
            filenames=(f"{model}.safetensors", original),
            url=URL.format(model=model),
        )
        with torch.device("meta"):
            self.network = timm.create_model(model, img_size=SIDE, num_classes=0)
        state = _named_as_in_timm(load_state("dinov2", path))
        if "pos_embed" not in state:
            raise DataError(f"{path}: not the weights of `dinov2`: no tensor `pos_embed`")
        state["pos_embed"] = positions(state["pos_embed"].float())
        fill(self.network, state, owner="dinov2", path=path)
        self._sha256 = digest(path)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    @property
    def num_features(self) -> int:
        """384, 768, 1024 or 1536."""
        return {"small": 384, "base": 768, "large": 1024, "giant": 1536}[self._config.model.split("_")[1]]

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, model, digest of its weights, layer, resizing and precision."""
        return {
            "extractor": "dinov2",
            "model": self._config.model,
            "sha256": self._sha256[:16],
            "layer": "class token",
            "resize": RESIZES[self._config.resize],
            "dtype": "float32",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Class tokens of (N, 3, H, W) uint8 images with values 0 .. 255: (N, F) float32."""
        require_pictures(images, owner="dinov2")
        if self._config.resize == "pil":
            x = pillow_bicubic(images, SIDE, SIDE).float()
        else:
            x = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bicubic", antialias=True)
        with without_tf32(x.device):
            tokens: Tensor = self.network((x / 255.0 - self.mean) / self.std)
        return tokens


def positions(embeddings: Tensor, patches: int = PATCHES) -> Tensor:
    """Position embeddings (1, 1 + M^2, F) for another number of patches per side: (1, 1 + patches^2, F).

    The class token's, which comes first, stays as it is; so do all where M is already right.

    Raises:
        ValueError: the patches do not fill a square.
    """
    before = math.isqrt(embeddings.shape[1] - 1)
    if before * before != embeddings.shape[1] - 1:
        raise ValueError(f"{embeddings.shape[1]} position embeddings are not 1 and a square number of patches")
    if before == patches:
        return embeddings
    grid = embeddings[:, 1:].unflatten(1, (before, before)).permute(0, 3, 1, 2)  # (1, F, M, M)
    scale = (patches + SCALE_OFFSET) / before
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([embeddings[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def _named_as_in_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names to timm's: no token for masked patches, and other words in the giant model's gates."""
    renamed = {name: value for name, value in state.items() if name != "mask_token"}
    return {name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): x for name, x in renamed.items()}
