"""The same features through torch-fidelity and through genbench: the same numbers."""

import warnings

import numpy as np
import pytest
import torch

from genbench.core.features import Statistics
from genbench.core.metric import Evidence, FeatureEvidence
from genbench.metrics.frechet_distance import FrechetDistance
from genbench.metrics.kernel_distance import KernelDistance
from genbench.metrics.precision_recall import PrecisionRecall


def moments_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features, rowvar=False)


@pytest.fixture(scope="module", autouse=True)
def torch_fidelity():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def features():
    """Correlated, non-negative, of unequal scale, like those after a ReLU: samples (700, 48), reference (900, 48)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(48, 48, generator=generator) * torch.linspace(0.1, 1.0, 48)
    reference = (torch.randn(900, 48, generator=generator) @ mix * 0.2 + 0.5).relu()
    samples = (torch.randn(700, 48, generator=generator) @ mix * 0.22 + 0.6).relu()
    return samples.double(), reference.double()


def _evidence(samples, reference):
    mean, covariance = moments_of(reference.numpy())
    statistics = Statistics(mean, covariance, len(reference), {}, "made up", "train", "none")
    return Evidence(
        features=FeatureEvidence(
            samples=samples, reference=reference, statistics=statistics, extractor="inception_v3", protocol={}
        )
    )


@pytest.mark.parametrize("num", [700, 40], ids=["more samples than features", "fewer samples than features"])
def test_frechet_distance_equals_that_of_torch_fidelity(features, num):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    samples, reference = features[0][:num], features[1]
    moments = [fid_features_to_statistics(part) for part in (samples, reference)]
    expected = fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"]
    (score,) = FrechetDistance().compute(_evidence(samples, reference))
    assert score.name == "fid"
    assert score.value == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_over_subsets_equals_that_of_torch_fidelity(features):
    from torch_fidelity.metric_kid import kid_features_to_metric

    expected = kid_features_to_metric(*features, kid_subsets=20, kid_subset_size=100, verbose=False)
    metric = KernelDistance(estimator="subsets", num_subsets=20, subset_size=100)
    (score,) = metric.compute(_evidence(*features))
    assert score.name == "kid"
    assert score.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-10)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_equal_those_of_torch_fidelity(features, k):
    from torch_fidelity.metric_prc import prc_features_to_metric

    expected = prc_features_to_metric(*features, prc_neighborhood=k, verbose=False)
    found = {score.name: score.value for score in PrecisionRecall(k=k).compute(_evidence(*features))}
    assert found["precision"] == pytest.approx(expected["precision"], rel=1e-6)
    assert found["recall"] == pytest.approx(expected["recall"], rel=1e-6)
    assert 0.0 < found["precision"] < 1.0
    assert 0.0 < found["recall"] < 1.0


def test_single_precision_features_give_the_same_counts_as_double(features):
    single = [part.float() for part in features]
    found = [score.value for score in PrecisionRecall().compute(_evidence(*single))]
    exact = [score.value for score in PrecisionRecall().compute(_evidence(*[part.double() for part in single]))]
    np.testing.assert_array_equal(found, exact)
