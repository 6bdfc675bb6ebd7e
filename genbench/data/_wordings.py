"""How the scenes of `shapes` are put into words: styles of captions, questions, and two words for every value.

An episode keeps to one style or one question, and for every value to one of its two words, so that its earlier texts
show how the next one is worded.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from genbench.core.dataset import PAD
from genbench.core.texts import DESCRIBE, QUESTION_MARK
from genbench.data.shapes import FACTORS

LENGTH = 14
"""Words of the longest text."""
PAIRS = (
    ("circle", "disc"), ("square", "box"), ("triangle", "wedge"), ("cross", "plus"),
    ("red", "scarlet"), ("green", "emerald"), ("blue", "azure"), ("yellow", "golden"), ("magenta", "pink"),
    ("cyan", "turquoise"), ("small", "tiny"), ("large", "big"), ("top", "upper"), ("bottom", "lower"),
    ("centre", "middle"), ("black", "jet"), ("grey", "silver"), ("white", "ivory"), ("brown", "chestnut"),
)  # fmt: skip
"""The two words for everything that can be said of a scene, but for left and right."""
STYLES = (
    "a SIZE COLOUR SHAPE AT POSITION on a BACKGROUND background",
    "BACKGROUND background with a COLOUR SHAPE",
    "the SHAPE is COLOUR and SIZE",
    "POSITION a COLOUR SHAPE",
    "there is a SIZE SHAPE AT POSITION",
    "in COLOUR on BACKGROUND a SIZE SHAPE",
)
STYLE_WEIGHTS = (2, 1, 1, 1, 1, 1)
"""The first style names every factor, and is twice as frequent as any other."""
QUESTIONS = ("what shape ?", "what colour ?", "what size ?", "where is it ?", "what background ?")
"""One for each factor, in the order of the factors."""
REQUEST = f"{DESCRIBE} {QUESTION_MARK}"
"""Stands before captions, so that a model without shots knows that one is wanted, but not of what style."""
UNNAMED = "what is it ?"
"""Asks for a factor that only earlier answers show."""
TASKS = ("caption", "question", "unnamed question")

_SLOTS = tuple(factor.name.upper() for factor in FACTORS)
_POSITION = _SLOTS.index("POSITION")
_PLAIN = sorted(
    {word for text in (*STYLES, *QUESTIONS, UNNAMED, REQUEST) for word in text.split() if not word.isupper()}
    | {"at", "in", "the", "left", "right"}
)
VOCABULARY = ("", *_PLAIN, *itertools.chain.from_iterable(PAIRS))
_NUMBER = {word: number for number, word in enumerate(VOCABULARY)}
_PAIR = {first: number for number, (first, _) in enumerate(PAIRS)}
assert QUESTION_MARK in _NUMBER


@dataclasses.dataclass(frozen=True)
class Wordings:
    """How N episodes speak."""

    task: np.ndarray
    """(N,) int64, index into `TASKS`."""
    style: np.ndarray
    """(N,) int64, index into `STYLES`, of captions."""
    factor: np.ndarray
    """(N,) int64, the factor that questions ask for."""
    second: np.ndarray
    """(N, 19) bool: for each of `PAIRS`, whether the second word is used."""


NUM_UNIFORMS = 3 + len(PAIRS)


def wordings_of(u: np.ndarray) -> Wordings:
    """Wordings from uniforms (N, NUM_UNIFORMS) in [0, 1).

    Half of the episodes are captions and a quarter each kind of question; every factor, and either word of a pair, is
    equally likely.
    """
    edges = np.cumsum(STYLE_WEIGHTS) / sum(STYLE_WEIGHTS)
    return Wordings(
        task=np.array([0, 0, 1, 2])[(u[:, 0] * 4).astype(np.int64)],
        style=np.searchsorted(edges, u[:, 1], side="right"),
        factor=(u[:, 2] * len(FACTORS)).astype(np.int64),
        second=u[:, 3:] < 0.5,
    )


def texts_of(wordings: Wordings, factors: np.ndarray) -> np.ndarray:
    """Texts of scenes with factors (N, S, 5): (N, S, LENGTH) uint8, padded with `PAD`."""
    texts = np.full((*factors.shape[:2], LENGTH), PAD, dtype=np.uint8)
    for i, values in enumerate(factors.tolist()):
        task, factor, second = int(wordings.task[i]), int(wordings.factor[i]), wordings.second[i].tolist()
        if task == 0:
            form = [*REQUEST.split(), *STYLES[wordings.style[i]].split()]
        else:
            form = [*(QUESTIONS[factor] if task == 1 else UNNAMED).split(), _SLOTS[factor]]
        for j, row in enumerate(values):
            words = [number for part in form for number in _spoken(part, row, second)]
            texts[i, j, : len(words)] = words
    return texts


def _spoken(part: str, values: list[int], second: list[bool]) -> list[int]:
    """Numbers of the words that stand for one part of a form."""
    if part == "AT":
        return [_NUMBER[word] for word in ("in the" if _is_centre(values) else "at the").split()]
    if part not in _SLOTS:
        return [_NUMBER[part]]
    place = _SLOTS.index(part)
    words = FACTORS[place].values[values[place]].split()
    return [_NUMBER[PAIRS[_PAIR[word]][second[_PAIR[word]]] if word in _PAIR else word] for word in words]


def _is_centre(values: list[int]) -> bool:
    return FACTORS[_POSITION].values[values[_POSITION]] == "centre"


def words_of_values() -> list[list[list[list[int]]]]:
    """For each factor, value and word of its name, the numbers of the words that may stand there."""
    return [
        [[_interchangeable(word) for word in value.split()] for value in factor.values]  # "top left": two of them
        for factor in FACTORS
    ]


def _interchangeable(word: str) -> list[int]:
    return [_NUMBER[each] for each in PAIRS[_PAIR[word]]] if word in _PAIR else [_NUMBER[word]]
