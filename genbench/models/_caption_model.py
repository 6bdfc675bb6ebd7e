"""What models of texts given pictures share: the data they take, writing word by word, and samples of grey pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from genbench.core.dataset import PAD, DataKind, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import CaptionModel, GenerativeModel
from genbench.core.texts import counted
from genbench.nn._categorical_head import draw

GREY = 128
"""Level of the pictures behind samples: they show nothing."""


class CaptionNetwork(GenerativeModel, CaptionModel):
    """A network that writes texts word by word; the padding is the word that ends one."""

    takes: ClassVar[tuple[DataKind, ...]] = ("text",)

    def __init__(self, spec: DataSpec, *, owner: str) -> None:
        super().__init__(spec)
        if spec.kind != "text" or not spec.vocabulary or not spec.picture_shape:
            raise SettingError(
                f"`{owner}` learns from pictures with texts, found {spec.kind} data", hint="`captioned_shapes` has both"
            )
        self.num_items, self.length = spec.shape
        self.num_words = len(spec.vocabulary)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw the texts of whole episodes of grey pictures, each given those before it: (N, S, T) uint8."""
        device = next(self.parameters()).device if list(self.parameters()) else torch.device("cpu")
        shape = (num_samples, self.num_items)
        pictures = torch.full((*shape, *self.spec.picture_shape), GREY, dtype=torch.uint8, device=device)
        texts = torch.full((*shape, self.length), PAD, dtype=torch.uint8, device=device)
        for item in range(self.num_items):
            before = slice(item + 1)
            texts[:, item] = self.describe(pictures[:, before], texts[:, before], generator=generator)
        return texts

    def nats_of(self, logits: Tensor, texts: Tensor) -> Tensor:
        """Minus the log-probability of every element of texts (..., T) under logits (..., T, V): (..., T) nats."""
        flat = F.cross_entropy(logits.float().flatten(0, -2), texts.long().flatten(), reduction="none")
        return flat.view(texts.shape)

    def log_likelihood_under(self, logits: Tensor, texts: Tensor) -> Tensor:
        """Log-probability of what counts of texts (B, T) under logits (B, T, V): (B,) nats."""
        return -(self.nats_of(logits, texts).double() * counted(texts, self.spec.vocabulary)).sum(1)


def written(
    given: Tensor, first: Tensor, following: Callable[[Tensor], Tensor], *, generator: Generator | None
) -> Tensor:
    """Write texts word by word: (B, T) uint8, padded with `PAD`.

    Args:
        given: (B, T) uint8, the words that texts begin with, then padding.
        first: (B, V), logits of the first word.
        following: from words (B,) int64 to logits (B, V) of the next; called once for each place.
        generator: one uniform number is drawn for each place; None takes the most probable word.
    """
    B, T = given.shape
    uniforms = None if generator is None else torch.rand(B, T, generator=generator, device=given.device)
    texts = torch.full((B, T), PAD, dtype=torch.int64, device=given.device)
    ended = torch.zeros(B, dtype=torch.bool, device=given.device)
    logits = first.float()
    for place in range(T):
        chosen = logits.argmax(1) if uniforms is None else draw(logits, uniforms[:, place])
        fixed = given[:, place].long()
        chosen = torch.where(fixed == PAD, chosen.masked_fill(ended, PAD), fixed)
        texts[:, place] = chosen
        ended = ended | (chosen == PAD)
        if place + 1 == T or bool(ended.all()):
            break
        logits = following(chosen).float()
    return texts.to(torch.uint8)
