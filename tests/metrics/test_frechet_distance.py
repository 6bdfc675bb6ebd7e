"""The Frechet distance as a function and as a metric: conventions, names, sides, corrections."""

import warnings

import numpy as np
import pytest
import torch

from genbench.core.errors import SettingError
from genbench.core.features import Statistics
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.frechet_distance import FrechetDistance, frechet_distance
from genbench.prob.moments import moments_of


def _normal(num, size, *, seed, shift=0.0, scale=1.0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)) * scale + shift


def _statistics(features, *, count=None, protocol=None):
    moments = moments_of(features)
    return Statistics(
        moments.mean, moments.covariance(), len(features) if count is None else count, protocol or {}, "x", "train", "y"
    )


def _evidence(samples=None, reference=None, statistics=None, sample_statistics=None, extractor="some_net"):
    return Evidence(
        features=FeatureEvidence(
            samples=samples,
            reference=reference,
            statistics=statistics,
            sample_statistics=sample_statistics,
            extractor=extractor,
            protocol={"extractor": extractor, "resize": "none"},
        )
    )


def test_every_kind_of_side_gives_the_same_value():
    x, y = _normal(300, 12, seed=0, scale=1.2), _normal(400, 12, seed=1)
    expected = frechet_distance(x, y).value
    for one in (x.numpy(), moments_of(x), _statistics(x)):
        for two in (y, moments_of(y), _statistics(y)):
            assert frechet_distance(one, two).value == pytest.approx(expected, rel=1e-10)


def test_samples_known_by_moments_have_no_spread_and_say_so():
    x, y = _normal(300, 4, seed=0), _normal(400, 4, seed=1)
    found = frechet_distance(moments_of(x), y)
    assert (found.stderr, found.ci95) == (None, None)
    assert "moments only" in found.how
    (score,) = FrechetDistance().compute(_evidence(statistics=_statistics(y), sample_statistics=_statistics(x)))
    assert score.value == pytest.approx(found.value, rel=1e-12)
    assert (score.stderr, score.num_samples, score.num_reference) == (None, 300, 400)
    assert "moments only" in score.interval


def test_interval_says_that_the_reference_is_held_fixed_and_the_bias_kept():
    found = frechet_distance(_normal(300, 4, seed=0), _normal(400, 4, seed=1))
    assert found.how == "delta method over samples, reference held fixed; small-sample bias not removed"


def test_reference_without_a_statistics_file_is_the_examples():
    x, y = _normal(300, 4, seed=0), _normal(400, 4, seed=1)
    (by_examples,) = FrechetDistance().compute(_evidence(x, y))
    (by_file,) = FrechetDistance().compute(_evidence(x, None, _statistics(y)))
    assert by_examples == by_file
    assert by_examples.num_reference == 400


def test_names_follow_the_extractor_and_the_correction():
    x, y = _normal(300, 4, seed=0), _normal(400, 4, seed=1)
    names = [
        FrechetDistance(bias=bias).compute(_evidence(x, y, extractor=extractor))[0].name
        for extractor in ("inception_v3", "dinov2")
        for bias in ("kept", "gaussian")
    ]
    assert names == ["fid", "fid_corrected", "fd_dinov2", "fd_dinov2_corrected"]


def test_correction_takes_most_of_the_bias_away_and_may_fall_below_zero():
    plain, corrected = [], []
    for seed in range(40):
        evidence = _evidence(_normal(200, 16, seed=2 * seed), _normal(200, 16, seed=2 * seed + 1))
        plain.append(FrechetDistance().compute(evidence)[0].value)
        (score,) = FrechetDistance(bias="gaussian").compute(evidence)
        corrected.append(score.value)
        assert score.ci95[0] < score.value < score.ci95[1]
        assert score.protocol["bias"] == "gaussian"
    assert abs(np.mean(corrected)) < 0.11 * np.mean(plain)
    assert min(corrected) < 0.0 < min(plain)


def test_fourth_moments_of_heavy_tails_matter():
    x, y = (torch.from_numpy(np.random.default_rng(seed).standard_t(5, size=(400, 16))) for seed in (0, 1))
    found = {bias: frechet_distance(x, y, bias=bias).value for bias in ("kept", "gaussian", "fourth_moment")}
    assert found["fourth_moment"] < found["gaussian"] < found["kept"]
    with pytest.raises(ValueError, match="features of the samples, found their moments only"):
        frechet_distance(moments_of(x), y, bias="fourth_moment")


def test_few_samples_are_told_of_in_the_interval():
    found = frechet_distance(_normal(30, 40, seed=0), _normal(400, 40, seed=1), bias="gaussian")
    assert "no more samples (30) than features (40): mostly bias" in found.how
    assert "1.3 features per sample, above 0.3" in found.how
    assert "above" not in frechet_distance(_normal(300, 40, seed=0), _normal(400, 40, seed=1), bias="gaussian").how


def test_correction_needs_to_know_how_many_examples_the_reference_had():
    unknown = _statistics(_normal(400, 4, seed=1), count=0, protocol={"identity": "not recorded"})
    (score,) = FrechetDistance().compute(_evidence(_normal(300, 4, seed=0), None, unknown))
    assert (score.num_reference, score.protocol["reference_identity"]) == (0, "not recorded")
    with pytest.raises(ValueError, match="number of examples on both sides"):
        FrechetDistance(bias="gaussian").compute(_evidence(_normal(300, 4, seed=0), None, unknown))


def test_population_covariance_is_stylegans_and_differs_from_all_others():
    """In one dimension of equal means: (s1 sqrt((N-1)/N) - s2 sqrt((M-1)/M))^2."""
    x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([[-3.0], [0.0], [3.0]])
    by_preset = {
        preset: FrechetDistance(preset=preset).compute(_evidence(x, y))[0].value
        for preset in ("default", "torch-fidelity", "pytorch-fid", "clean-fid", "stylegan3")
    }
    assert by_preset.pop("stylegan3") == pytest.approx((1.0 - 6.0**0.5) ** 2, rel=1e-12)
    assert list(by_preset.values()) == pytest.approx([(2.0**0.5 - 3.0) ** 2] * 4, rel=1e-12)


def test_settings_that_contradict_each_other_are_refused():
    assert build_metric(parse_ref("frechet_distance[preset=stylegan3]")) == FrechetDistance(preset="stylegan3")
    for text in (
        "frechet_distance[preset=piq]",
        "frechet_distance[ddof=0,preset=pytorch-fid]",
        "frechet_distance[bias=no]",
    ):
        with pytest.raises(SettingError, match="expected"):
            build_metric(parse_ref(text))


def test_bad_sides_are_refused_with_what_was_found():
    x = _normal(30, 4, seed=0)
    with pytest.raises(ValueError, match="at least 2 samples, found 1"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="at least 2 examples on each side, found 1"):
        frechet_distance(x, x[:1])
    with pytest.raises(ValueError, match=r"shape \(N, 4\), found \(30, 3\)"):
        frechet_distance(x[:, :3], x)
    with pytest.raises(ValueError, match="3 and of 4 features"):
        frechet_distance(moments_of(x[:, :3]), x)
    with pytest.raises(ValueError, match="at least 2 reference examples, or statistics of them, found 0"):
        FrechetDistance().compute(_evidence(x))


@pytest.mark.parametrize("num", [500, 40], ids=["more samples than features", "fewer samples than features"])
@pytest.mark.parametrize("peer", ["pytorch_fid", "clean-fid", "torch_fidelity"])
def test_value_equals_that_of_the_peers(peer, num):
    x = (_normal(500, 48, seed=0, scale=1.1) @ _normal(48, 48, seed=2)).relu().double()[:num]
    y = (_normal(600, 48, seed=1) @ _normal(48, 48, seed=2)).relu().double()
    moments = [part for side in (x, y) for part in (side.numpy().mean(0), np.cov(side.numpy(), rowvar=False))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if peer == "pytorch_fid":
            expected = pytest.importorskip("pytorch_fid.fid_score").calculate_frechet_distance(*moments)
        elif peer == "clean-fid":
            expected = pytest.importorskip("cleanfid.fid").frechet_distance(*moments)
        else:
            module = pytest.importorskip("torch_fidelity.metric_fid")
            sides = [{"mu": moments[i], "sigma": moments[i + 1]} for i in (0, 2)]
            expected = module.fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-6)


def test_no_warning_is_raised_where_peers_call_a_function_that_is_going_away():
    moments = np.zeros(8), np.eye(8), np.ones(8), np.eye(8) * 2.0
    peer = pytest.importorskip("pytorch_fid.fid_score")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        peer.calculate_frechet_distance(*moments)
    assert any("disp" in str(warning.message) for warning in seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = _normal(100, 8, seed=0)
        assert frechet_distance(x, x).value <= 1e-9
