"""CLIP: pictures and captions in one space, for CLIP scores and for distances of CLIP features.

Title: Learning Transferable Visual Models From Natural Language Supervision; Radford et al. 2021, arXiv:2103.00020.
The networks are open_clip's, with the weights of OpenAI, LAION and others by open_clip's names. Everything is computed
in float32, also on a GPU, where the first implementation of the CLIP score summed products in float16.

Pictures are resized to the last bit as Pillow does it: 8 bits, bicubic, shorter side to the network's, middle cut out.
Captions are given as they are; a prefix such as that of Hessel et al. 2021 is for the caller to write.

Departures: none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.core.errors import DataError
from genbench.core.features import FeatureExtractor, SteeringEncoder, register_features
from genbench.core.spec import Scalar
from genbench.features._clip_folders import HUB_PREFIX, is_folder
from genbench.features._clip_models import (
    UNPUBLISHED,
    build,
    num_features_of,
    num_tokens,
    recipe_of,
    tokenizer_of,
    weights_of,
)
from genbench.features._clip_resize import crop_to_square, pillow_bicubic
from genbench.features._float32 import require_pictures, without_tf32
from genbench.features._weights import digest

_logger = logging.getLogger(__name__)


@register_features("clip")
class CLIP(FeatureExtractor, SteeringEncoder):
    """Both towers, frozen.

    Raises:
        SettingError: open_clip has no such model or weights.
        DataError: the weights are missing, or those of another network.
    """

    source: ClassVar[str] = "Radford et al. 2021, arXiv:2103.00020; weights by open_clip's names, MIT for OpenAI's"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which network, trained how, with which weights."""

        model: str = "ViT-B-32"
        """open_clip's name of the architecture; or a folder with `open_clip_config.json` and weights, or a repository
        of Hugging Face's with these, as `hf-hub:OWNER/NAME`."""
        pretrained: str = "openai"
        """open_clip's tag of the training, which settles activation and normalisation; `none` for weights of your own
        that were trained with the plain ones. Of no effect where a folder or repository says all that itself."""
        weights: str = ""
        """File, or folder with it; empty to look in GENBENCH_WEIGHTS and to download what `pretrained` names."""

    network: open_clip.CLIP
    mean: Tensor
    std: Tensor

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self._config = self.Config() if config is None else config
        model, tag = self._config.model, self._config.pretrained
        self._recipe = recipe_of(model, tag)
        if tag == UNPUBLISHED and not self._config.weights and not is_folder(model):
            raise DataError(
                f"clip: weights of `{model}` with `pretrained={UNPUBLISHED}` are published nowhere",
                hint="name a file with `--weights FILE` (setting `weights`)",
            )
        path = weights_of(model, self._recipe, self._config.weights)
        self.network = build(model, self._recipe, path)
        self._sha256 = digest(path)
        self._tokenizer = tokenizer_of(model)
        self._side = _side(self.network.visual.image_size)
        self.register_buffer("mean", torch.tensor(self._recipe.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self._recipe.std)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    @property
    def num_features(self) -> int:
        """512 for ViT-B-32."""
        return num_features_of(self._config.model)

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, model, training, digest of the weights, resizing and precision."""
        how = f"to {self._side} x {self._side}" if self._recipe.squash else f"short side to {self._side}, centre crop"
        return {
            "extractor": "clip",
            "model": self._model_name(),
            "pretrained": "its own" if is_folder(self._config.model) else self._config.pretrained,
            "sha256": self._sha256[:16],
            "resize": f"Pillow bicubic, 8 bits, {how}",
            "dtype": "float32",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of (N, 3, H, W) uint8 images with values 0 .. 255, not normalised: (N, F) float32."""
        with without_tf32(images.device):
            embeddings: Tensor = self.network.encode_image(self.prepared(images))
        return embeddings

    def prepared(self, images: Tensor) -> Tensor:
        """What the image tower sees: (N, 3, side, side) float32, channels of about mean 0 and variance 1."""
        require_pictures(images, owner="clip")
        if self._recipe.squash:
            x = pillow_bicubic(images, self._side, self._side)
        else:
            x = crop_to_square(images, self._side)
        return (x.float() / 255.0 - self.mean) / self.std

    @property
    def sharpness(self) -> float:
        """1 / 0.01 of OpenAI's weights."""
        return float(self.network.logit_scale.exp())

    def embed_signed(self, images: Tensor) -> Tensor:
        """Embeddings of (N, 3, H, W) float images in [-1, 1], with gradients: (N, F) float32.

        They are resized as `prepared` does it, but not rounded to 8 bits on the way, which has no gradient.
        """
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f"pictures that are steered are square, found {tuple(images.shape[-2:])}")
        size = (self._side, self._side)
        x = F.interpolate(0.5 * (images + 1.0), size=size, mode="bicubic", align_corners=False, antialias=True)
        with without_tf32(images.device):
            embeddings: Tensor = self.network.encode_image((x.clamp(0.0, 1.0) - self.mean) / self.std)
        return embeddings

    def _model_name(self) -> str:
        """As set; of a folder its last part, as its path differs from machine to machine."""
        model = self._config.model
        return Path(model).name if is_folder(model) and not model.startswith(HUB_PREFIX) else model

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of captions, not normalised: (N, F) float32.

        What does not fit into the network's context, 77 tokens nearly always, is cut off, and logged.
        """
        tokens = self._tokenizer(list(captions))
        too_long = sum(num_tokens(self._tokenizer, caption) > tokens.shape[1] for caption in captions)
        if too_long:
            _logger.warning("clip: %d of %d captions are cut to %d tokens", too_long, len(tokens), tokens.shape[1])
        embeddings: Tensor = self.network.encode_text(tokens.to(self.mean.device))
        return embeddings


def _side(size: object) -> int:
    """Side of the square pictures of a tower that gives it as a number or as a pair."""
    if isinstance(size, tuple):
        assert size[0] == size[1]
        return int(size[0])
    return int(cast("int", size))
