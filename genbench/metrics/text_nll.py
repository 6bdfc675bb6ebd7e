"""Negative log-likelihood of true texts of held-out pictures, per word, by the number of shots before.

    text_nll_Kshot = -sum_i log p(text_i | picture_i, question_i, K shots) / sum_i n_i

n_i counts the words of a text after its question, and its end. It is the logarithm of perplexity; the error is that of
a ratio of two sums over texts (delta method): the spread of  nats_i - ratio n_i  over the mean of n_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, normal_interval


def ratio_estimate(amounts: Tensor, counts: Tensor) -> Estimate:
    """Sum of amounts (N,) over the sum of counts (N,), both of independent examples.

    Raises:
        ValueError: nothing is counted, or an amount is not finite.
    """
    amounts, counts = amounts.double(), counts.double()
    if not len(counts) or not bool(counts.sum() > 0):
        raise ValueError("nats per word need at least 1 word, found none")
    if not bool(amounts.isfinite().all()):
        raise ValueError("nats per word need finite log-likelihoods, found NaN or infinity")
    value = float(amounts.sum() / counts.sum())
    if len(counts) < 2:
        return Estimate(value)
    spread = (amounts - value * counts).square().sum() / (len(counts) - 1)
    stderr = math.sqrt(float(spread) / len(counts)) / float(counts.mean())
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0), "delta method over texts")


@register_metric("text_nll")
@dataclass(frozen=True)
class TextNLL(Metric):
    """Nats per word, the most shots first."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEXTS, Need.TEXT_LIKELIHOOD})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("text_nll_<shots>shot", "lower", "nats"),)
    source: ClassVar[str] = "Alayrac et al. 2022, arXiv:2204.14198, Eq. 1"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score for each number of shots.

        Raises:
            ValueError: there are no likelihoods.
        """
        texts = evidence.texts
        if texts is None or texts.nats is None or texts.num_tokens is None:
            raise ValueError("nats per word need log-likelihoods of texts, found none")
        return tuple(
            scored(
                f"text_nll_{shots}shot",
                ratio_estimate(-nats, texts.num_tokens),
                better="lower",
                unit="nats",
                num_samples=len(nats),
                protocol={key: value for key, value in texts.protocol.items() if key != "words"},
            )
            for shots, nats in zip(texts.shots, texts.nats, strict=True)
        )
