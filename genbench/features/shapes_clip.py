"""Small dual encoder of the pictures and captions of `shapes`: text alignment and ground truth offline.

Title: Learning Transferable Visual Models From Natural Language Supervision; Radford et al. 2021, arXiv:2103.00020.
Two towers, one of pictures and one of captions, meet in one space, where the cosine of a picture and its caption is
higher than that of any other pair. Trained by `genbench features train shapes_clip` on `shapes` at 8, 16, 32 and 64
pixels with every caption that the dataset can give.

Departures: the picture's tower is convolutional with batch normalisation; the caption's tower is a transformer over
whole words that pools by a mean, since captions have neither a start nor an end token; equal captions within a batch
are all right answers; pictures that show nothing are wrong answers to every caption (see the training).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import PAD
from genbench.core.features import FeatureExtractor, FeatureGrid, SteeringEncoder, register_features
from genbench.core.spec import Scalar
from genbench.features._described_weights import described

SHIPPED = Path(__file__).parent / "weights" / "shapes_clip.safetensors"
SIDE = 32
"""Pixels per side that the network sees; other sizes are resized."""
NUM_FEATURES = 64
GRID_SHAPE = (64, 4, 4)
"""Of the last convolution."""
RESIZE = "bilinear, half-pixel centres, no antialiasing, to 32"
WIDTH = 64
"""Of the text tower."""
NUM_HEADS = 4
NUM_LAYERS = 2


class TextLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each normalised before and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """Mix x (N, T, WIDTH) over the places where `words` (N, T) is true."""
        heads = self.query_key_value(self.attention_norm(x)).unflatten(2, (3, NUM_HEADS, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (N, heads, T, WIDTH / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=words[:, None, None, :])
        x = x + self.attended(mixed.transpose(1, 2).flatten(2))
        return x + cast("Tensor", self.perceptron(x))


class ShapesClipNetwork(nn.Module):
    """Both towers.

    Args:
        num_words: size of the vocabulary, padding included.
        caption_length: words of the longest caption.
    """

    def __init__(self, num_words: int, caption_length: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(3, 24, kernel=5, stride=2),  # 16 x 16
            *_convolution(24, 48, kernel=3, stride=2),  # 8 x 8
            *_convolution(48, 48, kernel=3, stride=1),
            *_convolution(48, 64, kernel=3, stride=1),
            *_convolution(64, 64, kernel=3, stride=2),  # 4 x 4
        )
        self.image_features = nn.Linear(64 * 4 * 4, NUM_FEATURES)
        self.words = nn.Embedding(num_words, WIDTH)
        self.places = nn.Parameter(torch.randn(caption_length, WIDTH))
        self.layers = nn.ModuleList([TextLayer() for _ in range(NUM_LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.text_features = nn.Linear(WIDTH, NUM_FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (N, 3, H, W) with values 0 .. 255: (N, 64)."""
        embedded: Tensor = self.image_features(self.grid(images).flatten(1))
        return embedded

    def grid(self, images: Tensor) -> Tensor:
        """Features of places of images (N, 3, H, W) with values 0 .. 255: (N, 64, 4, 4), none negative."""
        x = images.float() / 127.5 - 1.0
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
        places: Tensor = self.convolutions(x)
        return places

    def embed_text(self, text: Tensor) -> Tensor:
        """Embed tokens (N, T) padded with `PAD`, at least one word each: (N, 64)."""
        words = text != PAD
        x = self.words(text) + self.places
        for layer in self.layers:
            x = layer(x, words)
        shares = words / words.sum(dim=1, keepdim=True)
        mean = (self.norm(x) * shares[:, :, None]).sum(dim=1)
        embedded: Tensor = self.text_features(mean)
        return embedded


def _convolution(in_channels: int, out_channels: int, *, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


@register_features("shapes_clip")
class ShapesClip(FeatureExtractor, SteeringEncoder, FeatureGrid):
    """The trained towers, frozen. Embeddings are not normalised: training saw only their directions.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """

    source: ClassVar[str] = "trained by `genbench features train shapes_clip` on `shapes`; ships with genbench"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which weights."""

        weights: str = ""
        """Path of a safetensors file with its JSON beside it; empty for the shipped one."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        given = "" if config is None else config.weights
        path = Path(given).expanduser() if given else SHIPPED
        self.vocabulary, self.caption_length, self._sha256, self._temperature = _described(path)
        self.network = ShapesClipNetwork(len(self.vocabulary), self.caption_length)
        self.network.load_state_dict(load_file(path))  # float16 in the file, float32 here
        self.eval().requires_grad_(False)

    @property
    def num_features(self) -> int:
        """64."""
        return NUM_FEATURES

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, digest of its weights, resizing and precision."""
        return {"extractor": "shapes_clip", "sha256": self._sha256[:16], "resize": RESIZE, "dtype": "float32"}

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of (N, 3, H, W) uint8 images with values 0 .. 255, not normalised: (N, 64) float32."""
        embedded: Tensor = self.network(images)
        return embedded

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """64 channels of 4 x 4 places."""
        return GRID_SHAPE

    def grid(self, images: Tensor) -> Tensor:
        """Features of places before the last layer, (N, 64, 4, 4) float32, none negative."""
        return self.network.grid(images)

    @property
    def sharpness(self) -> float:
        """1 / 0.0427 of the shipped weights."""
        return 1.0 / self._temperature

    def embed_signed(self, images: Tensor) -> Tensor:
        """Embeddings of (N, 3, H, W) float images in [-1, 1], with gradients: (N, 64) float32."""
        return cast("Tensor", self.network(127.5 * (images + 1.0)))

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of captions, not normalised: (N, 64) float32.

        Raises:
            ValueError: a caption has no word, too many, or one that is not in the vocabulary.
        """
        tokens = [self._tokens(caption) for caption in captions]
        text = torch.tensor(tokens, dtype=torch.int64, device=self.network.places.device)
        return self.network.embed_text(text.view(len(tokens), self.caption_length))

    def _tokens(self, caption: str) -> list[int]:
        words = caption.split()
        if not 0 < len(words) <= self.caption_length:
            raise ValueError(f"caption `{caption}` has {len(words)} words, expected 1 to {self.caption_length}")
        for word in words:
            if word not in self.vocabulary:
                known = ", ".join(self.vocabulary[1:])
                raise ValueError(f"caption `{caption}` has the unknown word `{word}`, the vocabulary is {known}")
        tokens = [self.vocabulary.index(word) for word in words]
        return tokens + [PAD] * (self.caption_length - len(tokens))


def _described(path: Path) -> tuple[tuple[str, ...], int, str, float]:
    """Vocabulary, caption length, digest and temperature from the JSON beside the weights, after these match it."""
    said, digest = described(
        path,
        owner="shapes_clip",
        read=lambda found: (
            tuple(found["vocabulary"]),
            int(found["caption_length"]),
            float(found["training"]["temperature"]),
        ),
    )
    vocabulary, caption_length, temperature = said
    return vocabulary, caption_length, digest, temperature
