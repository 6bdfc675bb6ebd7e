"""Texts as data: where a question ends, what of a text counts, and who can say what a text names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.core.dataset import PAD

QUESTION_MARK = "?"
"""Ends a question: a text up to this word is given, and what follows is the answer."""
DESCRIBE = "describe"
"""Begins the question, or rather the request, whose answer is a caption."""


class NamesFactors(ABC):
    """Data that can read off a text which values of their factors it names, in whatever words."""

    @abstractmethod
    def named_factors(self, texts: Tensor) -> Tensor:
        """Values of the factors that texts (N, T) name: (N, F) int64, -1 where a text names none or several."""


def num_given(texts: Tensor, vocabulary: Sequence[str]) -> Tensor:
    """Words of texts (..., T) up to their question mark: (...) int64, 0 where there is none."""
    if QUESTION_MARK not in vocabulary:
        return torch.zeros(texts.shape[:-1], dtype=torch.int64, device=texts.device)
    marks = (texts == list(vocabulary).index(QUESTION_MARK)).long()
    return torch.where(marks.any(-1), marks.argmax(-1) + 1, 0)


def asks(texts: Tensor, vocabulary: Sequence[str]) -> Tensor:
    """Which texts (..., T) answer a question; the others are captions, with or without a request: (...) bool."""
    requested = list(vocabulary).index(DESCRIBE) if DESCRIBE in vocabulary else -1
    return (num_given(texts, vocabulary) > 0) & (texts[..., 0] != requested)


def questions_of(texts: Tensor, vocabulary: Sequence[str]) -> Tensor:
    """Texts (..., T) cut after their question mark, and empty where there is none: the same shape and type."""
    places = torch.arange(texts.shape[-1], device=texts.device)
    return texts.masked_fill(places >= num_given(texts, vocabulary)[..., None], PAD)


def counted(texts: Tensor, vocabulary: Sequence[str]) -> Tensor:
    """Which elements of texts (..., T) a likelihood counts: (..., T) bool.

    They are the words after the question, and the first padding after them, which ends the text. A text that fills all
    T places has no end of its own.
    """
    return ended(texts) & (
        torch.arange(texts.shape[-1], device=texts.device) >= num_given(texts, vocabulary)[..., None]
    )


def ended(texts: Tensor) -> Tensor:
    """Which elements of texts (..., T) are words, or the first padding after them: (..., T) bool."""
    words = texts != PAD
    after_word = torch.cat([torch.ones_like(words[..., :1]), words[..., :-1]], dim=-1)
    return after_word.long().cummin(-1).values.bool()
