"""Share of class-conditional samples that a classifier takes for the class that was asked.

    accuracy = #{i: argmax_c logits[i, c] = asked[i]} / N

(Ravuri and Vinyals 2019, arXiv:1905.10887, turn the roles round; this is the accuracy of a fixed
classifier on samples, as in Shmelkov et al. 2018, arXiv:1807.09499, `GAN-test`.) The value
holds for one classifier: its own errors on real data are the ceiling, and the interval does not
cover them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_rows
from genbench.metrics._scores import scored
from genbench.metrics._share import share_estimate
from genbench.prob.intervals import Estimate


def class_accuracy(asked: Sequence[int] | np.ndarray | Tensor, logits: Features) -> Estimate:
    """Share of samples whose most probable class is the one asked, 0 .. 1, with Wilson's interval.

    Of classes with equal logits the first counts as the most probable.

    Args:
        asked: (N,) integers, 0 .. C-1.
        logits: (N, C) float; any increasing function of the probabilities will do.

    Raises:
        ValueError: no sample, unequal counts, a class that the classifier does not know, or logits that are not finite.
    """
    asked, logits = torch.as_tensor(asked), finite_rows(logits, name="logits", what="logits")
    if asked.ndim != 1 or len(asked) != len(logits) or len(asked) == 0:
        raise ValueError(
            "class accuracy needs the asked class (N,) and logits (N, C) of at least 1 sample, "
            f"found shapes {tuple(asked.shape)} and {tuple(logits.shape)}"
        )
    num_classes = logits.shape[1]
    low, high = int(asked.min()), int(asked.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"classes {low} .. {high} were asked, the classifier knows 0 .. {num_classes - 1}")
    return share_estimate(logits.argmax(dim=1) == asked.to(logits.device))


@register_metric("class_accuracy")
@dataclass(frozen=True)
class ClassAccuracy(Metric):
    """One share, of samples that show their class."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LABELS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("class_accuracy", "higher"),)
    source: ClassVar[str] = "Shmelkov et al. 2018, arXiv:1807.09499 (GAN-test)"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: no labels, or those that `class_accuracy` refuses.
        """
        labels = evidence.labels
        if labels is None:
            raise ValueError("class accuracy needs asked classes and logits of at least 1 sample, found none")
        estimate = class_accuracy(labels.asked, labels.logits)
        protocol = {**labels.protocol, "classifier": labels.extractor, "num_classes": labels.logits.shape[1]}
        return (scored("class_accuracy", estimate, better="higher", num_samples=len(labels.asked), protocol=protocol),)
