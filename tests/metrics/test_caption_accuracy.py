"""Share of samples that show what their caption asked for."""

import pytest
import torch

from genbench.core.dataset import Factor
from genbench.core.features import FactorPredictions
from genbench.core.metric import Evidence, FactorEvidence
from genbench.metrics.caption_accuracy import CaptionAccuracy, caption_accuracy

FACTORS = (Factor("shape", ("square", "disc")), Factor("colour", ("red", "green", "blue")))


def _evidence(asked, read):
    samples = FactorPredictions(values=read, confidence=torch.ones(len(read)), factors=FACTORS)
    return Evidence(factors=FactorEvidence(samples=samples, training=torch.zeros(1, 2, dtype=torch.int64), asked=asked))


def test_a_sample_is_right_only_if_every_asked_factor_is():
    asked = torch.tensor([[0, 0], [1, 1], [1, 2], [0, 1]])
    read = torch.tensor([[0, 0], [1, 2], [0, 2], [0, 1]])
    found = caption_accuracy(asked, read, ["shape", "colour"])
    assert {name: share.value for name, share in found.items()} == {"every": 0.5, "shape": 0.75, "colour": 0.75}
    assert all(share.how == "Wilson over samples" for share in found.values())


def test_what_a_caption_leaves_open_is_neither_right_nor_wrong():
    asked = torch.tensor([[0, -1], [1, -1], [-1, -1]])
    read = torch.tensor([[0, 2], [0, 1], [1, 1]])
    found = caption_accuracy(asked, read, ["shape", "colour"])
    assert {name: share.value for name, share in found.items()} == {"every": 0.5, "shape": 0.5}
    scores = CaptionAccuracy().compute(_evidence(asked, read))
    assert [score.num_samples for score in scores] == [2, 2]


def test_scores_bear_the_names_of_the_factors():
    asked = torch.tensor([[0, 0], [1, 1]])
    scores = CaptionAccuracy().compute(_evidence(asked, asked))
    assert [score.name for score in scores] == ["caption_accuracy", "caption_accuracy_shape", "caption_accuracy_colour"]
    assert all(score.value == 1.0 and score.ci95[0] < 1.0 for score in scores)
    assert scores[0].protocol == {"factors": "shape,colour"}


def test_what_cannot_be_counted_is_refused():
    nothing = torch.full((2, 2), -1)
    with pytest.raises(ValueError, match="found 0 of 2"):
        caption_accuracy(nothing, nothing, ["shape", "colour"])
    with pytest.raises(ValueError, match="found shapes"):
        caption_accuracy(torch.zeros(2, 2), torch.zeros(3, 2), ["shape", "colour"])
    with pytest.raises(ValueError, match="found none"):
        CaptionAccuracy().compute(_evidence(None, torch.zeros(2, 2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="found none"):
        CaptionAccuracy().compute(Evidence())
