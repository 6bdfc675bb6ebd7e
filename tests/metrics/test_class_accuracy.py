"""Share of samples that show their class."""

import pytest
import torch

from genbench.core.metric import Evidence, LabelEvidence
from genbench.metrics.class_accuracy import ClassAccuracy, class_accuracy


def test_the_share_is_that_of_rows_whose_greatest_logit_is_the_asked_one():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 4.9], [-1.0, -3.0, -2.0], [0.0, 0.0, 9.0]])
    found = class_accuracy(torch.tensor([0, 2, 0, 2]), logits)
    assert found.value == 0.75
    assert found.stderr == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_the_interval_is_wilsons_and_not_empty_when_all_are_right():
    """Wilson's lower end at N right of N is N / (N + 1.96^2)."""
    found = class_accuracy(torch.zeros(20, dtype=torch.int64), torch.eye(3)[torch.zeros(20, dtype=torch.int64)])
    assert found.value == found.ci95[1] == 1.0
    assert found.ci95[0] == pytest.approx(20 / (20 + 1.959964**2), rel=1e-6)


@pytest.mark.slow
def test_the_interval_covers_the_true_share_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(2000):
        right = torch.rand(150, generator=generator) < 0.9
        logits = torch.stack([right.float(), 1.0 - right.float()], dim=1)
        low, high = class_accuracy(torch.zeros(150, dtype=torch.int64), logits).ci95
        covered += low <= 0.9 <= high
    assert 0.92 <= covered / 2000 <= 0.98


def test_the_score_names_the_classifier():
    labels = LabelEvidence(
        asked=torch.tensor([0, 1]), logits=torch.eye(2), extractor="some_net", protocol={"sha256": "0" * 16}
    )
    (score,) = ClassAccuracy().compute(Evidence(labels=labels))
    assert (score.name, score.value, score.num_samples) == ("class_accuracy", 1.0, 2)
    assert score.protocol == {"sha256": "0" * 16, "classifier": "some_net", "num_classes": 2}


@pytest.mark.parametrize(
    ("asked", "logits", "message"),
    [
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3), "at least 1 sample"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 3), "found shapes"),
        (torch.tensor([0, 3]), torch.zeros(2, 3), "classes 0 .. 3 were asked, the classifier knows 0 .. 2"),
        (torch.tensor([-1, 1]), torch.zeros(2, 3), "classes -1"),
        (torch.tensor([0, 1]), torch.full((2, 3), float("nan")), "finite"),
    ],
)
def test_what_cannot_be_counted_is_refused(asked, logits, message):
    with pytest.raises(ValueError, match=message):
        class_accuracy(asked, logits)


def test_samples_without_classes_are_refused():
    with pytest.raises(ValueError, match="found none"):
        ClassAccuracy().compute(Evidence())
