import numpy as np
import pytest
import torch

from genbench.core.errors import SettingError
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.cmmd import CMMD, cmmd


def _unit(angle):
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def _score(metric, samples, reference, extractor="clip"):
    evidence = FeatureEvidence(
        samples=samples, reference=reference, statistics=None, extractor=extractor, protocol={"model": "tiny"}
    )
    (score,) = metric.compute(Evidence(features=evidence))
    return score


def _by_hand(x, y, sigma, *, own_pairs):
    x, y = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, y))

    def kernel(a, b):
        return np.exp(-np.square(a[:, None] - b[None]).sum(axis=2) / (2.0 * sigma**2))

    def within(a):
        total = kernel(a, a).sum()
        return total / len(a) ** 2 if own_pairs else (total - len(a)) / (len(a) * (len(a) - 1))

    return 1000.0 * (within(x) + within(y) - 2.0 * kernel(x, y).mean())


@pytest.mark.parametrize("sigma", [10.0, 0.5])
def test_both_estimators_equal_their_definitions(sigma):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(23, 6)) + 1.0, random.normal(size=(19, 6))
    for estimator in ("v_statistic", "u_statistic"):
        expected = _by_hand(x, y, sigma, own_pairs=estimator == "v_statistic")
        assert cmmd(x, y, estimator=estimator, sigma=sigma).value == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("angle", [1e-3, 1e-2, 0.5, 3.0])
def test_two_points_at_an_angle_have_the_closed_form(angle):
    """1000 (2 - 2 exp(-4 sin^2(t/2) / 200)), here in a form that loses no digits."""
    expected = -2000.0 * np.expm1(-4.0 * np.sin(angle / 2.0) ** 2 / 200.0)
    found = cmmd(np.tile(_unit(0.0), (30, 1)), np.tile(_unit(angle), (20, 1)))
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_small_distances_survive_where_single_precision_means_cancel():
    """A rule in single precision, as the published code has it, is off by a tenth; the closed form judges."""
    angle = 1e-2
    expected = -2000.0 * np.expm1(-4.0 * np.sin(angle / 2.0) ** 2 / 200.0)
    x, y = (np.tile(_unit(one), (64, 1)).astype(np.float32) for one in (0.0, angle))
    gamma = np.float32(1.0 / 200.0)

    def single(a, b):
        squares = [np.square(part).sum(axis=1) for part in (a, b)]
        return np.exp(-gamma * (squares[0][:, None] + squares[1][None] - np.float32(2.0) * (a @ b.T))).mean()

    cancelled = 1000.0 * float(single(x, x) + single(y, y) - np.float32(2.0) * single(x, y))
    assert abs(cancelled / expected - 1.0) > 0.01
    assert cmmd(x, y).value == pytest.approx(expected, rel=1e-4)  # the rows themselves are rounded to 6e-8


def test_the_length_of_a_row_does_not_matter():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(20, 5)), random.normal(size=(20, 5))
    scaled = x * random.uniform(0.1, 9.0, size=(20, 1))
    assert cmmd(scaled, y).value == pytest.approx(cmmd(x, y).value, rel=1e-9)


def test_the_published_estimator_is_biased_by_the_pairs_of_a_point_with_itself():
    random = np.random.default_rng(2)
    pairs = [random.normal(size=(2, 40, 5)) for _ in range(200)]
    biased, unbiased = (
        [cmmd(x, y, estimator=estimator).value for x, y in pairs] for estimator in ("v_statistic", "u_statistic")
    )
    assert min(biased) >= 0.0
    assert abs(np.mean(unbiased)) < 3.0 * np.std(unbiased) / 200**0.5
    assert np.mean(biased) == pytest.approx(1000.0 * 2.0 / 40 * 0.01, rel=0.1)  # 1 - mean k is near E(1 - cos)/100


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_intervals_of_the_unbiased_estimator_cover_the_expected_value(shift):
    random = np.random.default_rng(3)
    found = [
        cmmd(random.normal(size=(120, 5)) + shift, random.normal(size=(160, 5)), estimator="u_statistic")
        for _ in range(500)
    ]
    truth = 0.0 if shift == 0.0 else np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= truth <= one.ci95[1] for one in found]) <= 0.98


def test_it_is_called_cmmd_over_clip_alone_and_says_its_settings():
    generator = torch.Generator().manual_seed(0)
    samples, reference = torch.randn(30, 4, generator=generator), torch.randn(25, 4, generator=generator)
    score = _score(CMMD(), samples, reference)
    assert (score.name, score.unit, score.num_samples, score.num_reference) == ("cmmd", "1000 MMD^2", 30, 25)
    assert score.protocol["estimator"] == "v_statistic"
    assert score.protocol["sigma"] == 10.0
    assert score.protocol["model"] == "tiny"
    assert score.stderr is not None
    assert score.ci95 is not None
    assert score.ci95[0] <= score.value <= score.ci95[1]
    assert _score(CMMD(), samples, reference, extractor="dinov2").name == "cmmd_dinov2"


@pytest.mark.parametrize("text", ["cmmd[estimator=u_statistic]", "cmmd[preset=none,sigma=-1.0]", "cmmd[sigma=3.0]"])
def test_settings_against_the_preset_are_refused(text):
    with pytest.raises(SettingError, match=r"found|expected"):
        build_metric(parse_ref(text))
    assert build_metric(parse_ref("cmmd[preset=none,estimator=u_statistic,sigma=3.0]"))


def test_too_few_embeddings_zeros_and_nan_are_refused():
    good = torch.ones(5, 3)
    with pytest.raises(ValueError, match=r"at least 2 samples.*found 1"):
        _score(CMMD(), good[:1], good)
    with pytest.raises(ValueError, match="row of zeros"):
        _score(CMMD(), torch.zeros(5, 3), good)
    with pytest.raises(ValueError, match="finite"):
        _score(CMMD(), good * float("nan"), good)
    with pytest.raises(ValueError, match="one width"):
        cmmd(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="found 0"):
        CMMD().compute(Evidence())
