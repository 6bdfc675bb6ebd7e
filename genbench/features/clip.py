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
from typing import ClassVar, cast

import open_clip
import torch
from torch import Tensor

from genbench.core.errors import DataError
from genbench.core.features import FeatureExtractor, TextEncoder, register_features
from genbench.core.spec import Scalar
from genbench.features._clip_models import UNPUBLISHED, build, num_features_of, recipe_of, tokenizer_of
from genbench.features._clip_resize import crop_to_square, pillow_bicubic
from genbench.features._float32 import require_pictures, without_tf32
from genbench.features._weights import digest, find_weights

_logger = logging.getLogger(__name__)


@register_features("clip")
class CLIP(FeatureExtractor, TextEncoder):
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
        """open_clip's name of the architecture."""
        pretrained: str = "openai"
        """open_clip's tag of the training, which settles activation and normalisation; `none` for weights of your own
        that were trained with the plain ones."""
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
        if tag == UNPUBLISHED and not self._config.weights:
            raise DataError(
                f"clip: weights of `{model}` with `pretrained={UNPUBLISHED}` are published nowhere",
                hint="name a file with `--weights FILE` (setting `weights`)",
            )
        path = find_weights(
            "clip",
            given=self._config.weights,
            filenames=self._recipe.filenames,
            url=self._recipe.url,
            sha256=self._recipe.sha256,
        )
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
            "model": self._config.model,
            "pretrained": self._config.pretrained,
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

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of captions, not normalised: (N, F) float32.

        What does not fit into the network's context, 77 tokens nearly always, is cut off, and logged.
        """
        tokens = self._tokenizer(list(captions))
        too_long = sum(len(self._tokenizer.encode(caption)) + 2 > tokens.shape[1] for caption in captions)
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
