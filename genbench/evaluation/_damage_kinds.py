"""Kinds of damage and how a batch is shared out among them, whatever its examples are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Kind:
    """One kind of damage."""

    damage: Callable[[Tensor, Generator], tuple[Tensor, Tensor]]
    """Examples to damaged ones and their grades."""
    share: float
    """Of a batch."""
    legible_below: float
    """Grade up to which the factors can be read."""
    meaningless: bool = False


def shared_out(
    kinds: Sequence[Kind],
    stored: Tensor,
    *,
    generator: Generator,
    opened: Callable[[Tensor], Tensor],
    closed: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Examples after damage, grades (B,), and whether each is legible and meaningless (B,).

    Args:
        kinds: in order, each of its share of the batch.
        stored: (B, ...) examples.
        generator: of the damage.
        opened: from stored examples to those that kinds damage.
        closed: and back.
    """
    examples, grades, legible, meaningless = [], [], [], []
    bounds = [0, *(round(len(stored) * edge) for edge in np.cumsum([kind.share for kind in kinds]))]
    for kind, start, stop in zip(kinds, bounds[:-1], bounds[1:], strict=True):
        if start == stop:
            continue
        example, grade = kind.damage(opened(stored[start:stop]), generator)
        examples.append(closed(example))
        grades.append(grade)
        legible.append(grade <= kind.legible_below)
        meaningless.append(torch.full_like(grade, kind.meaningless, dtype=torch.bool))
    return torch.cat(examples), torch.cat(grades), torch.cat(legible), torch.cat(meaningless)
