import numpy as np
import pytest
import torch

from genbench.core.errors import SettingError
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein


def _normal(num, size, *, seed, shift=0.0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)) + shift


def _score(metric, samples, reference):
    evidence = FeatureEvidence(samples=samples, reference=reference, statistics=None, extractor="clip", protocol={})
    (score,) = metric.compute(Evidence(features=evidence))
    return score


def test_a_common_shift_of_all_features_is_the_distance():
    x = _normal(500, 9, seed=0)
    assert sliced_wasserstein(x, x + 0.7, num_directions=3000).value == pytest.approx(0.7, rel=0.03)


def test_scaling_both_sets_scales_the_distance():
    x, y = _normal(60, 4, seed=0, shift=0.4), _normal(80, 4, seed=1)
    one, ten = sliced_wasserstein(x, y), sliced_wasserstein(10.0 * x, 10.0 * y)
    assert ten.value == pytest.approx(10.0 * one.value, rel=1e-6)
    assert ten.stderr == pytest.approx(10.0 * one.stderr, rel=1e-6)


@pytest.mark.slow
def test_intervals_cover_the_expected_value():
    found = [
        sliced_wasserstein(_normal(200, 4, seed=2 * i, shift=0.6), _normal(250, 4, seed=2 * i + 1), num_directions=60)
        for i in range(400)
    ]
    truth = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= truth <= one.ci95[1] for one in found]) <= 0.99


def test_both_presets_are_named_apart_and_agree_in_many_dimensions():
    x, y = _normal(1500, 200, seed=0, shift=0.2), _normal(1500, 200, seed=1)
    exact, gaussian = (_score(SlicedWasserstein(preset=preset), x, y) for preset in ("monte_carlo", "gaussian"))
    assert (exact.name, gaussian.name) == ("sw_clip", "sw_gaussian_clip")
    assert gaussian.value == pytest.approx(exact.value, rel=0.05)
    for score in (exact, gaussian):
        assert score.stderr > 0.0
        assert score.ci95[0] <= score.value <= score.ci95[1]


def test_the_value_is_the_same_at_each_run_and_hangs_on_the_seed():
    x, y = _normal(30, 4, seed=0), _normal(50, 4, seed=1)
    assert _score(SlicedWasserstein(), x, y) == _score(SlicedWasserstein(), x, y)
    assert _score(SlicedWasserstein(), x, y).value != _score(SlicedWasserstein(seed=1), x, y).value


def test_too_little_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 samples.*found 1"):
        _score(SlicedWasserstein(), _normal(1, 3, seed=0), _normal(9, 3, seed=1))
    with pytest.raises(ValueError, match="2 directions"):
        sliced_wasserstein(_normal(5, 3, seed=0), _normal(5, 3, seed=1), num_directions=1)
    with pytest.raises(SettingError, match=r"at least 2"):
        build_metric(parse_ref("sliced_wasserstein[num_directions=1]"))
