"""Controls that have captions: what bounds the scores of how well pictures show what was asked.

`real` is held-out pictures beside their own captions, what a perfect model would get; `shuffled_captions` the same
pictures beside the captions of others, what a model gets that draws perfect pictures and listens to nobody.
"""

from __future__ import annotations

import torch

from genbench.core.dataset import Batch

WITH_CAPTIONS = frozenset({"real", "shuffled_captions"})
_SEED = 15_485_863


def with_captions_of(name: str, examples: Batch) -> Batch:
    """Pictures with the captions, and the factors that these speak of, that a control puts beside them.

    No picture of `shuffled_captions` keeps its own caption: captions go round a random circle of all examples, which
    leaves equal ones in place only where another example has the same.

    Args:
        name: one of `WITH_CAPTIONS`.
        examples: real ones, at least two.

    Raises:
        ValueError: the control has no captions.
    """
    if name not in WITH_CAPTIONS or examples.text is None:
        raise ValueError(f"control `{name}` has no captions")
    if name == "real":
        return examples
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(_SEED))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    factors = None if examples.factors is None else examples.factors[other]
    return Batch(examples.x, text=examples.text[other], factors=factors)
