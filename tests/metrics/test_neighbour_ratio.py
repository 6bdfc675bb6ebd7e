import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal, squares

from genbench.metrics.neighbour_ratio import NeighbourRatio, neighbour_ratio


def test_both_numbers_equal_those_by_hand_for_sets_of_one_size():
    samples, reference, held_out = (normal(60, 3, seed=i) for i in range(3))
    train, unseen = (squares(samples, part).amin(dim=1).sqrt() for part in (reference, held_out))
    found = neighbour_ratio(samples, reference, held_out)
    assert found["closer_to_train"].value == pytest.approx(float((train < unseen).double().mean()), abs=1e-15)
    assert found["neighbour_ratio"].value == pytest.approx(float(np.median(train / unseen)), rel=1e-12)


def test_more_training_than_held_out_data_does_not_look_like_copying():
    found = neighbour_ratio(normal(1000, 3, seed=0), normal(5000, 3, seed=1), normal(500, 3, seed=2))
    assert found["closer_to_train"].ci95[0] < 0.5 < found["closer_to_train"].ci95[1]
    assert found["neighbour_ratio"].ci95[0] < 1.0 < found["neighbour_ratio"].ci95[1]


def test_copies_are_all_closer_to_the_training_data():
    reference = normal(200, 4, seed=1)
    found = neighbour_ratio(reference[:150], reference, normal(200, 4, seed=2))
    assert found["closer_to_train"].value == 1.0
    assert found["closer_to_train"].ci95[0] > 0.95
    assert found["neighbour_ratio"].value == 0.0


def test_ties_count_half_and_their_ratio_is_one():
    points = normal(50, 3, seed=0)
    found = neighbour_ratio(points, points, points)
    assert (found["closer_to_train"].value, found["neighbour_ratio"].value) == (0.5, 1.0)


def test_samples_that_equal_held_out_data_are_refused():
    held_out = normal(50, 3, seed=0)
    with pytest.raises(ValueError, match="no held-out data"):
        neighbour_ratio(held_out, normal(50, 3, seed=1), held_out)


def test_samples_that_share_their_nearest_example_count_as_one():
    """A thousand equal samples toss one coin, so nothing is known of the share."""
    found = neighbour_ratio(torch.zeros(1000, 3), normal(50, 3, seed=1).float(), normal(50, 3, seed=2).float())
    low, high = found["closer_to_train"].ci95
    assert high - low > 0.7


def test_scores_say_what_they_were_made_of_and_refuse_missing_evidence():
    samples, reference, held_out = (normal(60 + i, 3, seed=i) for i in range(3))
    scores = NeighbourRatio().compute(evidence_of(samples, reference, held_out))
    assert [score.name for score in scores] == ["closer_to_train", "neighbour_ratio"]
    assert scores[0].protocol["num_held_out"] == 62
    with pytest.raises(ValueError, match="outside the training set, found 0"):
        NeighbourRatio().compute(evidence_of(samples, reference))
    with pytest.raises(ValueError, match="finite"):
        NeighbourRatio().compute(evidence_of(samples, reference, held_out * float("nan")))


@pytest.mark.slow
def test_intervals_hold_the_null_when_nothing_is_copied():
    runs = [neighbour_ratio(*(normal(400, 8, seed=3 * i + part) for part in range(3))) for i in range(300)]
    for name, null in (("closer_to_train", 0.5), ("neighbour_ratio", 1.0)):
        assert 0.92 <= np.mean([run[name].ci95[0] <= null <= run[name].ci95[1] for run in runs]) <= 0.99, name
