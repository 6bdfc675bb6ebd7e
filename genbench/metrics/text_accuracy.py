"""Share of the factors named by true texts that are said rightly, in whatever words, by the number of shots.

    text_accuracy_k_Kshot = #{i: said[i, k] = true[i, k]} / #{i: the true text i names factor k}

A text that does not name the factor, or names several values of it, is wrong there. This reads off texts what
`caption_accuracy` reads off pictures (after TIFA, Hu et al. 2023, arXiv:2303.11897); either word for a value will do,
so that it judges what was seen more than how it is put.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from genbench.core.metric import Evidence, Metric, Need, ScoreName, TextEvidence, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.metrics._share import share_estimate

NOT_NAMED = -1


@register_metric("text_accuracy")
@dataclass(frozen=True)
class TextAccuracy(Metric):
    """One share for each factor and number of shots, the most shots first."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEXTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("text_accuracy_<factor>_<shots>shot", "higher"),)
    source: ClassVar[str] = "after Hu et al. 2023, arXiv:2303.11897 (TIFA)"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Scores of the factors that any true text names.

        Raises:
            ValueError: no text names a factor.
        """
        texts = evidence.texts
        if texts is None or not (texts.named != NOT_NAMED).any():
            raise ValueError("accuracy of texts needs at least 1 true text that names a factor, found none")
        return tuple(self._scores(texts))

    def _scores(self, texts: TextEvidence) -> Iterator[Score]:
        for shots, read in zip(texts.shots, texts.read, strict=True):
            for k, name in enumerate(texts.factors):
                rows = texts.named[:, k] != NOT_NAMED
                if rows.any():
                    yield scored(
                        f"text_accuracy_{name}_{shots}shot",
                        share_estimate(read[rows, k] == texts.named[rows, k]),
                        better="higher",
                        num_samples=int(rows.sum()),
                        protocol=texts.protocol,
                    )
