"""Exact match of captions and answers, by hand."""

import pytest
import torch
from six_texts import six_texts

from genbench.core.metric import Evidence, build_metric
from genbench.core.spec import Ref
from genbench.prob.intervals import share_interval


def test_captions_and_answers_are_counted_apart_the_most_shots_first():
    scores = build_metric(Ref(name="text_match")).compute(six_texts())
    found = {score.name: (score.value, score.num_samples) for score in scores}
    assert list(found) == ["caption_match_1shot", "answer_match_1shot", "caption_match_0shot", "answer_match_0shot"]
    assert list(found.values()) == [(0.5, 2), (0.75, 4), (0.0, 2), (0.25, 4)]
    assert scores[1].ci95 == pytest.approx(share_interval(0.75, 4))


def test_a_kind_of_text_that_never_occurs_has_no_score():
    scores = build_metric(Ref(name="text_match")).compute(six_texts(question=torch.ones(6, dtype=torch.bool)))
    assert [score.name for score in scores] == ["answer_match_1shot", "answer_match_0shot"]


def test_without_texts_there_is_a_reason():
    with pytest.raises(ValueError, match="at least 1 text"):
        build_metric(Ref(name="text_match")).compute(Evidence())
