"""Pictures that a trained model draws for words: prompts of a person, or captions of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genbench.core.dataset import PAD, Batch, Dataset, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import GenerativeModel, condition_kind
from genbench.harness.asked_evidence import caption_split, draw_given
from genbench.harness.evidence import subset
from genbench.prob.pixels import to_rgb

Pixels = npt.NDArray[np.uint8]
SHOWN_WORDS = 60
"""Of a vocabulary in a message; `shapes` has 27."""
SHORT_WORD, LONG_WORD = 3, 6
"""Letters from which on one slip, and two, leave a word recognisable."""


@dataclasses.dataclass(frozen=True)
class AskedCaptions:
    """Captions of held-out examples, first of combinations that training shows, then of those that it never shows."""

    examples: Batch
    held_out: tuple[bool, ...]
    """Of each: whether training never shows the combination; all False where the data hold none back."""


def asked_captions(dataset: Dataset, count: int) -> AskedCaptions:
    """The same captions in every run: (count,), half of them of each kind where there are both.

    Raises:
        SettingError: the data are no pictures with captions.
    """
    if not dataset.spec.vocabulary or dataset.spec.kind != "image":
        hint = "`genbench run --suite text_to_image` makes runs that have; texts of pictures have `--kind texts`"
        raise SettingError("the data of this run are no pictures with captions", hint=hint)
    both = caption_split(dataset) == "novel"
    seen = subset(dataset, "test", count - count // 2 if both else count)
    if not both or count < 2:
        return AskedCaptions(seen, (False,) * len(seen))
    unseen = subset(dataset, "novel", count // 2)
    assert seen.text is not None
    assert unseen.text is not None
    examples = Batch(torch.cat([seen.x, unseen.x]), text=torch.cat([seen.text, unseen.text]))
    return AskedCaptions(examples, (False,) * len(seen) + (True,) * len(unseen))


def why_none(model: GenerativeModel) -> str | None:
    """Why a model draws nothing for words, None when it does."""
    if condition_kind(model) != "text":
        return "it cannot be told in words what to draw"
    return None if model.spec.kind == "image" else f"it draws no pictures, its data are of kind `{model.spec.kind}`"


def pictures_for(model: GenerativeModel, captions: Tensor, *, seed: int) -> Pixels:
    """One picture for each caption (N, T), a function of the seed: (N, 3, H, W) uint8, values 0 .. 255.

    Raises:
        SampleError: what was drawn is not what the contract says.
    """
    return to_rgb(draw_given(model, captions, seed=seed), model.spec.levels or 256).numpy()


def tokens_of(prompts: Sequence[str], spec: DataSpec, *, length: int) -> Tensor:
    """Prompts as rows of `Batch.text`: (N, length) int64, padded with `PAD`.

    Args:
        prompts: at least one.
        spec: of the data that the model has learnt; its words are those of the vocabulary.
        length: words of the longest caption of these data.

    Raises:
        SettingError: a prompt has no word, too many, or one that is not in the vocabulary.
    """
    place = {word: index for index, word in enumerate(spec.vocabulary) if index != PAD}
    rows = torch.full((len(prompts), length), PAD, dtype=torch.int64)
    for number, prompt in enumerate(prompts, start=1):
        words = prompt.split()
        unknown = [word for word in words if word not in place]
        if unknown:
            raise SettingError(
                f"prompt {number} `{prompt}`: the model does not know {', '.join(f'`{word}`' for word in unknown)}",
                hint=_words_meant(unknown, list(place)),
            )
        if not 0 < len(words) <= length:
            raise SettingError(f"prompt {number} `{prompt}` has {len(words)} words, expected 1 to {length}")
        rows[number - 1, : len(words)] = torch.tensor([place[word] for word in words])
    return rows


def _words_meant(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Words that are a slip away from unknown ones; where one has none, which words there are, if they are not many."""
    near = {word: _near(word, known) for word in unknown}
    hints = [
        f"did you mean {' or '.join(f'`{other}`' for other in others)} for `{word}`?"
        for word, others in near.items()
        if others
    ]
    if not all(near.values()):
        some = ", ".join(known[:SHOWN_WORDS])
        hints.append(
            f"its words are {some}"
            if len(known) <= SHOWN_WORDS
            else f"it has {len(known):,} words, such as {some}; `genbench grid RUN --kind captions` shows captions"
        )
    return " ".join(hints)


def _near(word: str, known: Sequence[str]) -> list[str]:
    """Known words that are a slip away, or, where both are long, two; the same in other capitals before all others."""
    slips = {other: _slips(word.lower(), other.lower()) for other in known}
    least = min(slips.values(), default=0)
    return [other for other in known if slips[other] == least <= _allowed(word, other)]


def _allowed(word: str, other: str) -> int:
    shorter = min(len(word), len(other))
    return 0 if shorter < SHORT_WORD else 1 if shorter < LONG_WORD else 2


def _slips(word: str, other: str) -> int:
    """Letters replaced, inserted or deleted, or neighbours swapped, to make a word another (Damerau 1964)."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(word, start=1):
        row = [i]
        for j, wanted in enumerate(other, start=1):
            row.append(min(rows[-1][j] + 1, row[j - 1] + 1, rows[-1][j - 1] + (letter != wanted)))
            if i > 1 and j > 1 and (letter, word[i - 2]) == (other[j - 2], wanted):
                row[j] = min(row[j], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def caption_length(dataset: Dataset) -> int:
    """Words of the longest caption that the data set gives, 0 without captions."""
    text = dataset.load("train", [0]).text
    return 0 if text is None else text.shape[1]
