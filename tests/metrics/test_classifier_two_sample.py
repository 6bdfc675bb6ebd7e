"""The classifier two-sample test: equal and far laws, its null law, and a test by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from genbench.core.metric import Evidence, VectorEvidence
from genbench.metrics.classifier_two_sample import ClassifierTwoSample, classifier_two_sample

CLASSIFIERS = ["knn", "logistic", "mlp"]


def _normal(num, *, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(num, 2)) + shift


@pytest.mark.parametrize("split", ["half", "five_fold"])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_far_laws_are_told_apart_and_equal_ones_are_not(classifier, split):
    settings = {"classifier": classifier, "split": split}
    far = classifier_two_sample(_normal(150), _normal(150, seed=1, shift=6.0), **settings)
    assert far["accuracy"].value > 0.99
    assert far["p_value"].value < 1e-6
    same = classifier_two_sample(_normal(150), _normal(150, seed=1), **settings)
    assert 0.35 < same["accuracy"].value < 0.65
    assert same["p_value"].value > 0.01


def test_a_line_tells_shifted_gaussians_as_often_as_the_closed_form_says():
    """Phi(|s| / 2), here with a shift of length 2."""
    found = classifier_two_sample(
        _normal(6000), _normal(6000, seed=1, shift=2.0 / np.sqrt(2.0)), classifier="logistic", split="five_fold"
    )
    assert found["accuracy"].value == pytest.approx(norm.cdf(1.0), abs=0.015)
    assert found["accuracy"].ci95[0] <= norm.cdf(1.0) <= found["accuracy"].ci95[1]


def test_the_p_value_is_the_normal_tail_of_the_accuracy():
    found = classifier_two_sample(_normal(100), _normal(100, seed=1, shift=0.5))
    share = found["accuracy"].value
    assert found["p_value"].value == pytest.approx(norm.sf(share, 0.5, np.sqrt(1.0 / 400.0)), rel=1e-12)
    assert (found["p_value"].ci95, found["p_value"].how) == (None, "none")


def test_of_the_larger_set_as_many_points_are_used_as_the_smaller_has():
    """Else a classifier that always names the larger set would do well."""
    found = classifier_two_sample(_normal(40), _normal(4000, seed=1))
    assert 0.25 < found["accuracy"].value < 0.75


@pytest.mark.slow
def test_p_values_of_equal_laws_are_spread_as_chance_spreads_them():
    found = [
        classifier_two_sample(_normal(150, seed=2 * i), _normal(150, seed=2 * i + 1), classifier="logistic")[
            "p_value"
        ].value
        for i in range(400)
    ]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.08
    assert kstest(found, "uniform").statistic < 0.1


@pytest.mark.slow
def test_the_interval_holds_what_the_trained_classifier_gets_right_95_times_in_100():
    """A line through the middle between two Gaussians whatever the training points: its share is Phi(1/2) nearly."""
    held = []
    for i in range(200):
        found = classifier_two_sample(
            _normal(400, seed=2 * i), _normal(400, seed=2 * i + 1, shift=1.0 / np.sqrt(2.0)), classifier="logistic"
        )
        low, high = found["accuracy"].ci95
        held.append(low <= norm.cdf(0.5) <= high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_seeds_decide_and_units_do_not_matter():
    x, y = _normal(60), _normal(60, seed=1, shift=0.4)
    assert classifier_two_sample(x, y, seed=1) == classifier_two_sample(x, y, seed=1)
    assert classifier_two_sample(x * 8.0, y * 8.0)["accuracy"] == classifier_two_sample(x, y)["accuracy"]


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="at least 20 samples and 20 reference points, found 19 and 50"):
        classifier_two_sample(_normal(19), _normal(50))
    with pytest.raises(ValueError, match="reference points, found none"):
        ClassifierTwoSample().compute(Evidence())


def test_two_scores_come_with_the_classifier():
    points = VectorEvidence(samples=torch.from_numpy(_normal(30)), reference=torch.from_numpy(_normal(50, seed=1)))
    accuracy, p_value = ClassifierTwoSample(classifier="mlp").compute(Evidence(vectors=points))
    assert (accuracy.name, accuracy.better, accuracy.unit) == ("c2st", "lower", "share")
    assert (p_value.name, p_value.better) == ("c2st_p_value", "higher")
    assert accuracy.protocol == {
        "classifier": "mlp",
        "split": "half",
        "seed": 0,
        "num_samples": 30,
        "num_reference": 50,
    }
