import numpy as np
import pytest
import torch

from genbench.core.errors import SettingError
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.mind import MIND, mind


def _normal(num, size, *, seed, shift=0.0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_shifted_gaussians_have_three_times_the_squared_shift(shift):
    """3 F mean (theta.mu)^2 = 3 |mu|^2 = 3 F shift^2, where all features move by `shift`."""
    found = mind(_normal(4000, 16, seed=0, shift=shift), _normal(4000, 16, seed=1))
    assert found.value == pytest.approx(3.0 * 16 * shift**2, rel=0.1)


def test_a_set_is_at_no_distance_from_itself():
    x = _normal(50, 6, seed=0)
    assert mind(x, x.flip(0)).value == pytest.approx(0.0, abs=1e-20)


def test_value_equals_the_definition_with_the_directions_of_the_original():
    """Directions after the subset of the larger set, both from one generator, as torch-fidelity draws them."""
    x, y = _normal(40, 5, seed=0, shift=0.3), _normal(60, 5, seed=1)
    generator = torch.Generator().manual_seed(2020)
    kept = y[torch.randperm(60, generator=generator)[:40]]
    directions = torch.randn(200, 5, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    gaps = (x @ directions.T).sort(dim=0).values - (kept @ directions.T).sort(dim=0).values
    expected = 15.0 * float(gaps.double().square().mean())
    assert mind(x, y, num_directions=200).value == pytest.approx(expected, rel=1e-5)


def test_quantiles_keep_every_example():
    x, y = _normal(60, 4, seed=0, shift=0.5), _normal(90, 4, seed=1)
    doubled = mind(x, torch.cat([y, y]), preset="quantiles")
    assert doubled.value == pytest.approx(mind(x, y, preset="quantiles").value, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.4, 1.0])
def test_intervals_cover_the_expected_value(shift):
    """Centred on the mean over repetitions: the small-sample bias is declared, not covered."""
    found = [
        mind(_normal(200, 5, seed=2 * i, shift=shift), _normal(200, 5, seed=2 * i + 1), num_directions=100)
        for i in range(400)
    ]
    truth = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= truth <= one.ci95[1] for one in found]) <= 0.99


def _score(metric, samples, reference, extractor="inception_v3"):
    evidence = FeatureEvidence(samples=samples, reference=reference, statistics=None, extractor=extractor, protocol={})
    (score,) = metric.compute(Evidence(features=evidence))
    return score


def test_the_metric_says_how_many_examples_it_used():
    x, y = _normal(30, 4, seed=0), _normal(50, 4, seed=1)
    score = _score(MIND(num_directions=20), x, y)
    assert (score.name, score.num_samples, score.num_reference) == ("mind", 30, 30)
    assert score == _score(MIND(num_directions=20), x, y)
    score = _score(MIND(num_directions=20, preset="quantiles"), x, y, extractor="clip")
    assert (score.name, score.num_samples, score.num_reference) == ("mind_clip", 30, 50)
    assert score.protocol["unequal_sizes"] == "quantiles"


def test_too_little_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 samples.*found 1"):
        _score(MIND(), _normal(1, 3, seed=0), _normal(9, 3, seed=1))
    with pytest.raises(ValueError, match="one width"):
        mind(_normal(5, 3, seed=0), _normal(5, 4, seed=0))
    with pytest.raises(ValueError, match="finite"):
        _score(MIND(), _normal(5, 3, seed=0) * float("nan"), _normal(9, 3, seed=1))
    with pytest.raises(SettingError, match=r"at least 2"):
        build_metric(parse_ref("mind[num_directions=1]"))
