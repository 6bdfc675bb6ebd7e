"""What the feature metrics say of sets whose answer is known."""

import dataclasses

import numpy as np
import pytest
import torch

from genbench.core.errors import SettingError
from genbench.core.features import Statistics
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.frechet_distance import FrechetDistance
from genbench.metrics.kernel_distance import KernelDistance
from genbench.metrics.precision_recall import PrecisionRecall


def moments_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


METRICS = [FrechetDistance(), KernelDistance(), PrecisionRecall()]


def _evidence(samples, reference, statistics=None):
    if statistics is None:
        statistics = Statistics(*moments_of(reference.numpy()), len(reference), {}, "made up", "train", "none")
    return Evidence(
        features=FeatureEvidence(
            samples=samples,
            reference=reference,
            statistics=statistics,
            extractor="some_net",
            protocol={"extractor": "some_net", "sha256": "0" * 16},
        )
    )


def _normal(num, size, *, seed, shift=0.0, scale=1.0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)) * scale + shift


def _values(metric, *sets):
    return {score.name: score.value for score in metric.compute(_evidence(*sets))}


def test_scores_are_named_for_the_extractor():
    x, y = _normal(50, 4, seed=0), _normal(60, 4, seed=1)
    names = [score.name for metric in METRICS for score in metric.compute(_evidence(x, y))]
    assert names == ["fd_some_net", "kd_some_net", "precision", "recall", "density", "coverage"]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_every_score_has_an_error_an_interval_around_it_and_its_counts(metric):
    scores = metric.compute(_evidence(_normal(80, 6, seed=0, shift=0.3), _normal(90, 6, seed=1)))
    for score in scores:
        assert score.stderr is not None
        assert score.stderr > 0
        assert score.ci95 is not None
        assert score.ci95[0] <= score.value <= score.ci95[1]
        assert score.interval != "none"
        assert (score.num_samples, score.num_reference) == (80, 90)
        assert score.protocol["sha256"] == "0" * 16


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_features_that_are_not_finite_are_refused(metric):
    broken = _normal(20, 3, seed=0)
    broken[7, 1] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        metric.compute(_evidence(broken, _normal(20, 3, seed=1)))


@pytest.mark.parametrize(
    ("metric", "enough"),
    [
        (FrechetDistance(), 2),
        (KernelDistance(), 2),
        (PrecisionRecall(k=3), 4),
        (KernelDistance(estimator="subsets"), 1000),
    ],
)
def test_too_few_samples_are_refused_with_the_number_needed(metric, enough):
    with pytest.raises(ValueError, match=f"at least {enough} samples.*found {enough - 1}"):
        metric.compute(_evidence(_normal(enough - 1, 3, seed=0), _normal(enough, 3, seed=1)))
    with pytest.raises(ValueError, match=f"at least {enough} samples.*found 0"):
        metric.compute(Evidence())
    assert metric.compute(_evidence(_normal(enough, 3, seed=0), _normal(enough, 3, seed=1)))


@pytest.mark.parametrize(
    "text", ["frechet_distance[ddof=2]", "kernel_distance[num_subsets=1]", "precision_recall[k=0]"]
)
def test_impossible_settings_are_refused(text):
    with pytest.raises(SettingError, match=r"found|expected"):
        build_metric(parse_ref(text))


def test_frechet_distance_compares_with_the_statistics_and_not_with_the_reference_examples():
    samples = _normal(4000, 3, seed=0)
    shifted = Statistics(
        samples.double().mean(0).numpy() + 2.0, np.cov(samples.T.double()), 10**6, {}, "x", "train", "y"
    )
    (score,) = FrechetDistance().compute(_evidence(samples, _normal(10, 3, seed=1), shifted))
    assert score.value == pytest.approx(12.0, rel=1e-9)
    assert score.num_reference == 10**6
    assert score.protocol["reference_sha256"] == shifted.sha256


def test_population_covariance_changes_the_frechet_distance_by_its_closed_form():
    """In one dimension of equal means: (s1 sqrt((N-1)/N) - s2 sqrt((M-1)/M))^2."""
    samples, reference = torch.tensor([[-1.0], [1.0]]), torch.tensor([[-3.0], [0.0], [3.0]])
    (score,) = FrechetDistance(ddof=0).compute(_evidence(samples, reference))
    assert score.value == pytest.approx((1.0 - 6.0**0.5) ** 2, rel=1e-12)
    (score,) = FrechetDistance(ddof=1).compute(_evidence(samples, reference))
    assert score.value == pytest.approx((2.0**0.5 - 3.0) ** 2, rel=1e-12)


def test_precision_recall_density_and_coverage_equal_those_of_sets_small_enough_to_draw():
    """Reference at 0, 1, 2, 10 with balls of radius 1, 1, 1, 8; samples at 0.5, 1, 30 of radius 0.5, 0.5, 29."""
    reference, samples = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), torch.tensor([[0.5], [1.0], [30.0]])
    found = _values(PrecisionRecall(k=1), samples, reference)
    assert found["precision"] == 2 / 3
    assert found["recall"] == 1.0  # 0 and 1 lie on edges, 2 and 10 in the ball around 30
    assert found["density"] == (2 + 1) / (1 * 3)  # 0.5 inside two balls, 1 inside its own
    assert found["coverage"] == 2 / 4


def test_samples_equal_to_the_reference_are_perfect_and_far_ones_worthless():
    reference = _normal(200, 5, seed=0)
    same = _values(PrecisionRecall(), reference, reference)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    assert set(_values(PrecisionRecall(), reference * 0.1 + 100.0, reference).values()) == {0.0}


def test_collapse_to_one_mode_keeps_precision_and_loses_recall_and_coverage():
    reference = torch.cat([_normal(200, 5, seed=0), _normal(200, 5, seed=1, shift=50.0)])
    found = _values(PrecisionRecall(), _normal(400, 5, seed=2), reference)
    assert found["precision"] > 0.85
    assert 0.4 < found["recall"] <= 0.5
    assert 0.4 < found["coverage"] <= 0.5


def test_a_single_repeated_sample_has_no_recall():
    found = _values(PrecisionRecall(), torch.zeros(100, 5), _normal(100, 5, seed=0))
    assert found["recall"] == 0.0
    assert found["precision"] == 1.0
    assert found["coverage"] < 1.0


def test_a_share_of_zero_has_an_interval_all_the_same():
    scores = PrecisionRecall().compute(_evidence(_normal(50, 5, seed=0, shift=99.0), _normal(50, 5, seed=1)))
    precision = scores[0]
    assert (precision.value, precision.stderr) == (0.0, 0.0)
    assert precision.ci95 is not None
    assert precision.ci95[1] == pytest.approx(1.96**2 / (50 + 1.96**2), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 0.8)])
def test_standard_errors_of_shares_match_the_spread_over_repetitions(shift, scale):
    runs = [
        PrecisionRecall().compute(
            _evidence(_normal(256, 8, seed=2 * i, shift=shift, scale=scale), _normal(256, 8, seed=2 * i + 1))
        )
        for i in range(150)
    ]
    for scores in zip(*runs, strict=True):
        spread = np.std([score.value for score in scores], ddof=1)
        mean_square = np.mean([(score.stderr or 0.0) ** 2 for score in scores])
        assert 0.7 < np.sqrt(mean_square) / spread < 1.6, scores[0].name


def test_subsets_widen_the_standard_error_by_their_own_spread():
    evidence = _evidence(_normal(300, 4, seed=0, shift=0.2), _normal(300, 4, seed=1))
    (whole,) = KernelDistance().compute(evidence)
    (drawn,) = KernelDistance(estimator="subsets", num_subsets=10, subset_size=50).compute(evidence)
    assert whole.stderr is not None
    assert drawn.stderr is not None
    assert drawn.stderr > whole.stderr
    assert drawn.protocol != whole.protocol


def test_metrics_leave_the_evidence_alone():
    samples, reference = _normal(60, 4, seed=0), _normal(60, 4, seed=1)
    evidence = _evidence(samples.clone(), reference.clone())
    first = [metric.compute(evidence) for metric in METRICS]
    assert first == [metric.compute(dataclasses.replace(evidence)) for metric in METRICS]
    assert evidence.features is not None
    assert torch.equal(evidence.features.samples, samples)
    assert torch.equal(evidence.features.reference, reference)
