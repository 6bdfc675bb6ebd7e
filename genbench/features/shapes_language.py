"""Small causal language model of the texts of `captioned_shapes`, trained on texts alone, without a picture.

Title: Language Models are Unsupervised Multitask Learners; Radford et al. 2019. Causal attention with normalisation
before it, over whole words. It reads rows of texts as they stand in an episode, and so learns to go on in the style,
with the words and to the question of the texts before; what is in the pictures it can only guess. It is there to be
frozen, with layers for pictures put between its own (`flamingo`). Trained by `genbench features train shapes_language`.

As an extractor it gives the state after the last word of an episode.

Departures: words are whole; a place is the sum of learned vectors of the item and of the place in it, so that the same
word of two texts stands at like places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.core.dataset import DataKind
from genbench.core.features import FeatureExtractor, LanguageModel, register_features
from genbench.core.spec import Scalar
from genbench.features._described_weights import described
from genbench.nn.transformer import INITIAL_STD, blocks_of, causal

SHIPPED = Path(__file__).parent / "weights" / "shapes_language.safetensors"
WIDTH = 64
NUM_HEADS = 4
NUM_LAYERS = 4


class LanguageNetwork(nn.Module):
    """The transformer.

    Args:
        num_words: size of the vocabulary, padding included.
        num_items: texts of the longest row.
        length: words of an item.
    """

    def __init__(self, num_words: int, num_items: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words + 1, WIDTH)  # the last is the mark before an item
        self.places = nn.Parameter(torch.randn(length + 1, WIDTH) * INITIAL_STD)
        self.items = nn.Parameter(torch.randn(num_items, WIDTH) * INITIAL_STD)
        self.layers = blocks_of(WIDTH, num_layers=NUM_LAYERS, num_heads=NUM_HEADS, dropout=0.0)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_words, bias=False)
        for table in (self.words.weight, self.head.weight):
            nn.init.normal_(table, std=INITIAL_STD)

    def embed(self, tokens: Tensor, first: int) -> Tensor:
        """Vectors of elements (B, n) from number `first` on: (B, n, WIDTH)."""
        numbers = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        step = len(self.places)
        embedded: Tensor = self.words(tokens) + self.places[numbers % step] + self.items[numbers // step]
        return embedded

    def logits(self, x: Tensor) -> Tensor:
        """Logits from vectors after the last layer."""
        found: Tensor = self.head(self.norm(x))
        return found

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the word after each element of rows (B, L): (B, L, words)."""
        x = self.embed(tokens, 0)
        for layer in self.layers:
            x = layer(x)
        return self.logits(x)


@register_features("shapes_language")
class ShapesLanguage(FeatureExtractor, LanguageModel):
    """The trained model, frozen.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """

    kind: ClassVar[DataKind] = "text"
    source: ClassVar[str] = (
        "trained by `genbench features train shapes_language` on the texts of `captioned_shapes`; ships with genbench"
    )

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which weights."""

        weights: str = ""
        """Path of a safetensors file with its JSON beside it; empty for the shipped one."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        given = "" if config is None else config.weights
        path = Path(given).expanduser() if given else SHIPPED
        self.vocabulary, self.num_items, self.length, self._sha256 = _described(path)
        self.width, self.num_layers = WIDTH, NUM_LAYERS
        self.network = LanguageNetwork(len(self.vocabulary), self.num_items, self.length)
        self.network.load_state_dict(load_file(path))  # float16 in the file, float32 here
        self.eval().requires_grad_(False)

    @property
    def num_features(self) -> int:
        """64."""
        return WIDTH

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, digest of its weights and precision."""
        return {"extractor": "shapes_language", "sha256": self._sha256[:16], "dtype": "float32"}

    def forward(self, images: Tensor) -> Tensor:
        """State after the last word of episodes of texts (N, S, T) uint8: (N, 64) float32."""
        marks = torch.full_like(images[..., :1], len(self.vocabulary), dtype=torch.int64)
        x = self.embed(torch.cat([marks, images.long()], dim=2).flatten(1))
        for number in range(self.num_layers):
            x = self.layer(number, x, causal)
        state: Tensor = self.network.norm(x[:, -1])
        return state

    def embed(self, tokens: Tensor, *, first: int = 0) -> Tensor:
        """Vectors of elements of rows, their places added: (B, n, 64)."""
        return self.network.embed(tokens, first)

    def layer(self, number: int, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Vectors after one of the four layers."""
        after: Tensor = self.network.layers[number](x, attend)
        return after

    def logits(self, x: Tensor) -> Tensor:
        """Logits of the word after each element."""
        return self.network.logits(x)


def _described(path: Path) -> tuple[tuple[str, ...], int, int, str]:
    """Vocabulary, items, words of an item and digest from the JSON beside the weights, after the weights match it."""
    said, digest = described(
        path,
        owner="shapes_language",
        read=lambda found: (tuple(found["vocabulary"]), int(found["num_items"]), int(found["text_length"])),
    )
    return *said, digest
