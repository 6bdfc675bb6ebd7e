"""Diversity of samples as a mean over pairs, and over classes."""

import numpy as np
import pytest
import torch

from genbench.core.metric import Evidence, PairEvidence
from genbench.metrics.lpips_diversity import LPIPSDiversity, lpips_diversity, lpips_diversity_within_class


def _evidence(distances, classes=None):
    return Evidence(
        pairs=PairEvidence(distances=distances, classes=classes, extractor="lpips", protocol={"net": "alex"})
    )


def test_diversity_is_the_mean_distance_with_the_error_of_a_mean():
    found = lpips_diversity(torch.tensor([0.1, 0.3, 0.5]))
    assert found.value == pytest.approx(0.3, abs=1e-7)
    assert found.stderr == pytest.approx(0.2 / 3**0.5, abs=1e-7)


def test_classes_count_equally_however_many_pairs_they_have():
    distances, classes = torch.tensor([0.1, 0.3, 1.0, 1.0, 1.0, 1.0]), torch.tensor([7, 7, 2, 2, 2, 2])
    found = lpips_diversity_within_class(distances, classes)
    assert found.value == pytest.approx((0.2 + 1.0) / 2, abs=1e-7)
    assert found.stderr == pytest.approx((0.02 / 2) ** 0.5 / 2, abs=1e-7)  # the class of equal distances has no error


def test_a_class_with_one_pair_takes_the_variance_of_the_others():
    found = lpips_diversity_within_class(torch.tensor([0.1, 0.3, 0.9]), torch.tensor([0, 0, 1]))
    assert found.stderr == pytest.approx((0.02 / 2 + 0.02 / 1) ** 0.5 / 2, abs=1e-7)


@pytest.mark.slow
def test_both_intervals_cover_the_true_mean_as_often_as_they_say():
    random, means = np.random.default_rng(0), np.array([0.2, 0.5, 0.9])
    classes = torch.arange(3).repeat_interleave(torch.tensor([20, 40, 30]))
    overall = within = 0
    for _ in range(1000):
        drawn = torch.from_numpy(random.gamma(8.0, means[classes.numpy()] / 8.0))
        low, high = lpips_diversity_within_class(drawn, classes).ci95
        within += low <= means.mean() <= high
        low, high = lpips_diversity(torch.from_numpy(random.gamma(8.0, 0.5 / 8.0, size=80))).ci95
        overall += low <= 0.5 <= high
    assert 0.92 <= overall / 1000 <= 0.98
    assert 0.92 <= within / 1000 <= 0.98


def test_the_score_is_named_for_what_was_paired():
    distances = torch.tensor([0.1, 0.3, 0.5, 0.2])
    (overall,) = LPIPSDiversity().compute(_evidence(distances))
    (within,) = LPIPSDiversity().compute(_evidence(distances, torch.tensor([0, 0, 1, 1])))
    assert (overall.name, within.name) == ("lpips_diversity", "lpips_diversity_within_class")
    assert overall.num_samples == within.num_samples == 8
    assert overall.protocol == {"net": "alex", "extractor": "lpips"}
    assert within.protocol["num_classes"] == 2
    assert overall.better == "higher"


def test_copies_of_one_picture_have_no_diversity():
    found = lpips_diversity(torch.zeros(10))
    assert (found.value, found.ci95) == (0.0, (0.0, 0.0))


def test_what_cannot_be_averaged_is_refused():
    for distances, message in (
        (torch.tensor([0.1]), "at least 2 pairs"),
        (torch.tensor([0.1, float("nan")]), "finite"),
        (torch.tensor([0.1, -0.2]), "not negative"),
    ):
        with pytest.raises(ValueError, match=message):
            lpips_diversity(distances)
    with pytest.raises(ValueError, match="one each"):
        lpips_diversity_within_class(torch.ones(3), torch.zeros(2))
    with pytest.raises(ValueError, match="a class with at least 2 pairs"):
        lpips_diversity_within_class(torch.ones(3), torch.arange(3))
    with pytest.raises(ValueError, match="found 0"):
        LPIPSDiversity().compute(Evidence())
