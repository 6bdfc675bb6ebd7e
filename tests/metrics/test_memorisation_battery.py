"""What the memorisation metrics together say of planted copies."""

import pytest
import torch
from neighbour_evidence import normal

from genbench.metrics.authenticity import authenticity
from genbench.metrics.copying_test import copying_test
from genbench.metrics.duplicates import duplicates
from genbench.metrics.feature_likelihood_divergence import feature_likelihood_divergence
from genbench.metrics.mifid import mifid
from genbench.metrics.neighbour_ratio import neighbour_ratio

pytestmark = pytest.mark.slow
NUM, SIZE = 5000, 64


def features(seed):
    """Like those after a ReLU."""
    return (normal(NUM, SIZE, seed=seed) + 0.5).relu().float()


@pytest.mark.parametrize("noise", [0.0, 0.02], ids=["exact", "near"])
def test_one_per_cent_of_planted_copies_is_found(noise):
    samples, train, held_out = features(0), features(1), features(2)
    clean = duplicates(samples, train, held_out)
    assert clean["near_duplicates_p"].value > 0.01
    planted = samples.clone()
    planted[:50] = train[100:150] + noise * normal(50, SIZE, seed=3).float()
    found = duplicates(planted, train, held_out)
    assert found["near_duplicates_p"].value < 1e-6
    assert found["near_duplicates"].value >= 0.01
    assert found["exact_duplicates"].value == (0.01 if noise == 0.0 else 0.0)
    assert authenticity(planted, train).value < authenticity(samples, train).value
    assert mifid(planted, train)["memorisation_distance"].value < mifid(samples, train)["memorisation_distance"].value
    moved = [copying_test(part, train, held_out)["copying_test"].value for part in (samples, planted)]
    assert moved[1] < moved[0]


def test_a_collapse_to_one_training_image_is_caught():
    train, held_out = features(1), features(2)
    samples = train[7:8] + 1e-3 * normal(NUM, SIZE, seed=3).float()
    assert mifid(samples, train)["memorisation_distance"].value < 1e-5
    assert authenticity(samples, train).value == 0.0
    assert neighbour_ratio(samples, train, held_out)["neighbour_ratio"].value < 0.01
    assert duplicates(samples, train, held_out)["near_duplicates"].value == 1.0


def test_a_model_that_memorised_everything_is_told_from_one_that_learned():
    samples, train, held_out = features(0)[:1000], features(1)[:1000], features(2)[:1000]
    copies = train + 0.01 * torch.randn(train.shape, generator=torch.Generator().manual_seed(3))
    assert neighbour_ratio(copies, train, held_out)["closer_to_train"].ci95[0] > 0.99
    assert copying_test(copies, train, held_out)["copying_p"].value < 1e-10
    learned, memorised = (feature_likelihood_divergence(part, train, held_out).value for part in (samples, copies))
    assert memorised > learned + 50.0
