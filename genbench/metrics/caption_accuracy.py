"""Share of captioned samples in which a reader of factors finds everything that the caption asked for.

    accuracy   = #{i: read[i, k] = asked[i, k] for every asked k} / N
    accuracy_k = #{i: read[i, k] = asked[i, k]} / #{i: k was asked of i}

The reader takes the place of the object detector or question answerer of Hinz et al. 2019,
arXiv:1910.13321 (semantic object accuracy), and Hu et al. 2023, arXiv:2303.11897 (TIFA), where the
ground-truth factors of the data are known. Its own errors on real data are the ceiling; the interval
does not cover them.

Where the data hold combinations of factors back, `caption_accuracy` is of captions of these, and `captions=seen` asks
for those that training shows, as `seen_caption_accuracy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.metric import Evidence, FactorEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.metrics._share import share_estimate
from genbench.prob.intervals import Estimate

EVERY = "every"
"""Key of the share of samples in which everything is right."""
NOT_ASKED = -1
"""In place of a factor's value where a caption leaves it open."""


def caption_accuracy(asked: Tensor, read: Tensor, names: Sequence[str]) -> dict[str, Estimate]:
    """Shares of samples that show what was asked, each 0 .. 1 with Wilson's interval.

    Args:
        asked: (N, K) integers; -1 where a caption leaves the factor open. A sample of which nothing was asked does
            not count, nor does a factor that was asked of no sample.
        read: (N, K) integers, the factors seen.
        names: of the K factors.

    Returns:
        The share with every asked factor right under `every`, and that of each factor under its name.

    Raises:
        ValueError: unequal shapes, or nothing was asked of any sample.
    """
    if asked.shape != read.shape or asked.ndim != 2 or asked.shape[1] != len(names):
        raise ValueError(
            f"caption accuracy needs asked and read factors (N, {len(names)}), "
            f"found shapes {tuple(asked.shape)} and {tuple(read.shape)}"
        )
    wanted = asked != NOT_ASKED
    counted = wanted.any(dim=1)
    if not counted.any():
        raise ValueError(f"caption accuracy needs at least 1 sample with something asked, found 0 of {len(asked)}")
    right = asked == read.to(asked.device)
    shares = {EVERY: share_estimate((right | ~wanted).all(dim=1)[counted])}
    for k, name in enumerate(names):
        if wanted[:, k].any():
            shares[name] = share_estimate(right[wanted[:, k], k])
    return shares


@register_metric("caption_accuracy")
@dataclass(frozen=True)
class CaptionAccuracy(Metric):
    """Samples with every asked factor right, and one share for each factor."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FACTORS, Need.PROMPTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("caption_accuracy", "higher"),
        ScoreName("caption_accuracy_<factor>", "higher"),
        ScoreName("seen_caption_accuracy", "higher"),
        ScoreName("seen_caption_accuracy_<factor>", "higher"),
    )
    source: ClassVar[str] = "after Hinz et al. 2019, arXiv:1910.13321 (semantic object accuracy)"

    captions: Literal["held_out", "seen"] = "held_out"
    """What a model is asked for: combinations that its training data hold back, where they do, or those they show."""

    @property
    def asks_seen(self) -> bool:
        """As set."""
        return self.captions == "seen"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score for whole captions and one for each factor.

        Raises:
            ValueError: nothing was asked of the samples.
        """
        factors = evidence.factors
        if factors is None or factors.asked is None:
            raise ValueError("caption accuracy needs the factors that each sample was asked to show, found none")
        names = [factor.name for factor in factors.samples.factors]
        shares = caption_accuracy(factors.asked, factors.samples.values.to(factors.asked.device), names)
        return tuple(self._score(factors, names, name, estimate) for name, estimate in shares.items())

    def _score(self, factors: FactorEvidence, names: list[str], name: str, estimate: Estimate) -> Score:
        assert factors.asked is not None
        asked = factors.asked != NOT_ASKED
        column = asked.any(dim=1) if name == EVERY else asked[:, names.index(name)]
        whole = "seen_caption_accuracy" if self.asks_seen else "caption_accuracy"
        return scored(
            whole if name == EVERY else f"{whole}_{name}",
            estimate,
            better="higher",
            num_samples=int(torch.count_nonzero(column)),
            protocol={**factors.protocol, "factors": ",".join(names)},
        )
