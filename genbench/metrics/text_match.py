"""Share of held-out pictures of which exactly the true text is said, by the number of shots before.

    caption_match_Kshot = #{captions i: text_i = true text_i, word for word} / #captions
    answer_match_Kshot  = the same of answers to questions

Exact match is how Alayrac et al. 2022, arXiv:2204.14198, judge answers in words of the model's own. Captions,
which as a rule are compared by overlap, can be matched too where a picture and the texts before it leave one right
text. No word is mapped to another: one that the episode does not use is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.metrics._share import share_estimate


@register_metric("text_match")
@dataclass(frozen=True)
class TextMatch(Metric):
    """Captions and answers that are right word for word, the most shots first."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEXTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("caption_match_<shots>shot", "higher"),
        ScoreName("answer_match_<shots>shot", "higher"),
    )
    source: ClassVar[str] = "Alayrac et al. 2022, arXiv:2204.14198 (open-ended answers, exact match)"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score of captions and one of answers for each number of shots; a kind that never occurs has none.

        Raises:
            ValueError: there are no texts.
        """
        texts = evidence.texts
        if texts is None or not len(texts.question):
            raise ValueError("exact match needs at least 1 text, found none")
        return tuple(self._scores(evidence))

    def _scores(self, evidence: Evidence) -> Iterator[Score]:
        texts = evidence.texts
        assert texts is not None
        for shots, right in zip(texts.shots, texts.right, strict=True):
            for name, rows in (("caption", ~texts.question), ("answer", texts.question)):
                if rows.any():
                    yield scored(
                        f"{name}_match_{shots}shot",
                        share_estimate(right[rows]),
                        better="higher",
                        num_samples=int(rows.sum()),
                        protocol=texts.protocol,
                    )
