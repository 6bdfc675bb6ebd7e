import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal

from genbench.metrics.duplicates import Duplicates, duplicates


def test_exact_and_near_copies_are_counted():
    reference, held_out = normal(500, 8, seed=1), normal(500, 8, seed=2)
    samples = normal(400, 8, seed=0, shift=20.0)
    samples[:10] = reference[5:15]
    samples[10:40] = reference[20:50] + 1e-6
    found = duplicates(samples, reference, held_out)
    assert found["exact_duplicates"].value == 10 / 400
    assert found["near_duplicates"].value == 40 / 400
    assert found["near_duplicates_p"].value < 1e-20


def test_the_threshold_is_the_quantile_of_held_out_distances():
    """Training data at 0, held-out data at 1 .. 100: a tenth of it is within 10."""
    reference = torch.zeros(1, 1)
    held_out, samples = torch.arange(1.0, 101.0)[:, None], torch.tensor([[0.0], [9.5], [10.0], [10.5]])
    found = duplicates(samples, reference, held_out, quantile=0.1)
    assert found["near_duplicates"].value == 3 / 4
    assert found["exact_duplicates"].value == 1 / 4


def test_few_samples_as_near_as_the_nearest_held_out_example_have_their_exact_chance():
    """One held-out distance below t: P(K >= 1) with K beta-binomial(N, 2, H - 1), by its closed form at K = 0."""
    num, unseen = 3, 10
    held_out = torch.arange(1.0, 11.0)[:, None]
    found = duplicates(torch.tensor([[0.5], [50.0], [60.0]]), torch.zeros(1, 1), held_out)
    none = np.prod([(unseen - 1 + i) / (unseen + 1 + i) for i in range(num)])
    assert found["near_duplicates_p"].value == pytest.approx(1.0 - none, rel=1e-12)


def test_duplicates_between_training_and_held_out_data_do_not_make_an_alarm():
    """Real data sets repeat themselves; a model that repeats as often copies no more than the data do."""
    reference, held_out = normal(1000, 4, seed=1), normal(1000, 4, seed=2)
    samples = normal(1000, 4, seed=0)
    held_out[:50], samples[:50] = reference[:50], reference[100:150]
    found = duplicates(samples, reference, held_out)
    assert found["exact_duplicates"].value == 0.05
    assert found["near_duplicates_p"].value > 0.1


def test_nothing_copied_is_zero_with_an_interval():
    found = duplicates(normal(100, 8, seed=0, shift=9.0), normal(100, 8, seed=1), normal(100, 8, seed=2))
    assert found["near_duplicates"].value == 0.0
    assert found["near_duplicates"].ci95[1] > 0.0
    assert found["near_duplicates_p"].value == 1.0


def test_scores_name_the_quantile_and_refuse_missing_evidence():
    sets = [normal(50, 3, seed=i) for i in range(3)]
    scores = Duplicates().compute(evidence_of(*sets))
    assert [score.name for score in scores] == ["exact_duplicates", "near_duplicates", "near_duplicates_p"]
    assert scores[0].protocol["quantile"] == 0.001
    with pytest.raises(ValueError, match="outside the training set"):
        Duplicates().compute(evidence_of(*sets[:2]))
    with pytest.raises(ValueError, match="quantile is 1"):
        Duplicates(quantile=1.0)


@pytest.mark.slow
def test_the_chance_is_a_bound_when_nothing_is_copied():
    chances = np.array(
        [
            duplicates(*(normal(300, 4, seed=3 * i + part) for part in range(3)), quantile=0.02)[
                "near_duplicates_p"
            ].value
            for i in range(400)
        ]
    )
    for level in (0.01, 0.05, 0.2):
        assert np.mean(chances <= level) <= level + 2.6 * (level * (1 - level) / len(chances)) ** 0.5
    assert np.mean(chances <= 0.2) > 0.05  # and not an idle one
