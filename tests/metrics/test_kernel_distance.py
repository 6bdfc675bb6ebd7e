"""The kernel distance against closed forms and against the codes whose subsets it can draw."""

import warnings

import numpy as np
import pytest
import torch

from genbench.core.errors import SettingError
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.kernel_distance import (
    RULES,
    KernelDistance,
    SubsetRule,
    kernel_distance,
    kernel_distance_of_subsets,
)

PRESETS = sorted(RULES)


def _peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def _evidence(samples, reference, extractor="inception_v3"):
    return Evidence(
        features=FeatureEvidence(
            samples=samples,
            reference=reference,
            statistics=None,
            extractor=extractor,
            protocol={"extractor": extractor},
        )
    )


@pytest.fixture(scope="module")
def features():
    """Like those after a ReLU: samples (1200, 24), reference (1300, 24), float64."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(24, 24, generator=generator) * torch.linspace(0.1, 1.0, 24)
    reference = (torch.randn(1300, 24, generator=generator) @ mix * 0.2 + 0.5).relu()
    samples = (torch.randn(1200, 24, generator=generator) @ mix * 0.22 + 0.6).relu()
    return samples.double(), reference.double()


def _score(metric, samples, reference):
    (score,) = metric.compute(_evidence(samples, reference))
    return score


def _population(shift, size):
    """MMD^2 of N(shift, I) and N(0, I) in `size` dimensions: the first three moments of x.y are known."""

    def mean_kernel(a, b, ab):
        first, second = ab, a + b + size + ab**2
        third = ab**3 + 3.0 * ab * b + 3.0 * ab * (size + 2.0 + a)
        return third / size**3 + 3.0 * second / size**2 + 3.0 * first / size + 1.0

    square = size * shift**2
    return mean_kernel(square, square, square) + mean_kernel(0.0, 0.0, 0.0) - 2.0 * mean_kernel(square, 0.0, 0.0)


def test_the_whole_is_unbiased_for_shifted_gaussians():
    random = np.random.default_rng(0)
    values = [kernel_distance(random.normal(size=(40, 6)) + 0.4, random.normal(size=(30, 6))).value for _ in range(600)]
    assert abs(np.mean(values) - _population(0.4, 6)) < 3.0 * np.std(values) / 600**0.5


@pytest.mark.parametrize("kernel", ["poly", "rbf"])
def test_both_kernels_equal_those_of_torch_fidelity(features, kernel):
    _peer("torch_fidelity")
    from torch_fidelity.metric_kid import kid_features_to_metric

    expected = kid_features_to_metric(*features, kid_subsets=20, kid_subset_size=100, kid_kernel=kernel, verbose=False)
    rule = SubsetRule(num_subsets=20, size=100)
    drawn = kernel_distance_of_subsets(*features, rule=rule, kernel="cubic" if kernel == "poly" else "rbf")
    assert drawn.mean.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9, abs=1e-12)
    assert drawn.values.std() == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_fidelity_preset_equals_torch_fidelity(features, dtype):
    """In single precision nearer to their value in double than they are."""
    _peer("torch_fidelity")
    from torch_fidelity.metric_kid import kid_features_to_metric

    pair = [part.to(dtype) for part in features]
    expected = kid_features_to_metric(*(part.double() for part in pair), verbose=False, kid_subset_size=1000)
    score = _score(KernelDistance(preset="torch-fidelity"), *pair)
    exact = dtype == torch.float64
    mean, spread = (expected[f"kernel_inception_distance_{name}"] for name in ("mean", "std"))
    assert score.value == pytest.approx(mean, rel=1e-10 if exact else 1e-6)
    drawn = kernel_distance_of_subsets(*pair, rule=RULES["torch-fidelity"])
    assert drawn.values.std() == pytest.approx(spread, rel=1e-9 if exact else 1e-5)
    assert abs(score.value - mean) < (1e-12 if exact else 1e-8)


def _by_rule(samples, reference, draws):
    """The definition, subset by subset, in the words of no code."""
    size = samples.shape[1]
    values = []
    for rows, columns in draws:
        x, y = samples[rows].numpy(), reference[columns].numpy()
        m = len(x)
        xx, yy, xy = ((a @ b.T / size + 1.0) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
        values.append(within / (m * (m - 1)) - 2.0 * xy.mean())
    return np.array(values)


@pytest.mark.parametrize(
    ("preset", "num", "size", "seed", "real_first"),
    [
        ("torch-fidelity", 100, 1000, 2020, False),
        ("mmd-gan", 50, 1000, 2020, False),
        ("clean-fid", 100, 1000, 2020, False),
        ("stylegan3", 100, 1000, 2020, False),
        ("dgm-eval", 100, 1000, 2020, True),
        ("fld", 100, 600, 42, False),
    ],
)
def test_each_preset_draws_as_its_code_does(features, preset, num, size, seed, real_first):
    samples, reference = (part[:, :6] for part in features)
    rule = RULES[preset]
    assert (rule.num_subsets, rule.size_for(1200, 1300)) == (num, size)
    random, draws = np.random.RandomState(seed), []
    for _ in range(4):
        order = (1300, 1200) if real_first else (1200, 1300)
        pair = [random.choice(count, size, replace=False) for count in order]
        draws.append(tuple(reversed(pair)) if real_first else tuple(pair))
    found = kernel_distance_of_subsets(samples, reference, rule=rule)
    np.testing.assert_allclose(found.values[:4], _by_rule(samples, reference, draws), rtol=1e-9, atol=1e-12)
    assert _score(KernelDistance(preset=preset), samples, reference).value == found.values.mean()


@pytest.mark.slow
def test_clean_fid_preset_equals_clean_fid_from_the_same_seed(features):
    fid = _peer("cleanfid.fid")
    samples, reference = (part[:300] for part in features)
    state = np.random.get_state()  # noqa: NPY002  (their stream is the global one)
    np.random.seed(2020)  # noqa: NPY002
    expected = fid.kernel_distance(reference.numpy(), samples.numpy())
    np.random.set_state(state)  # noqa: NPY002
    assert _score(KernelDistance(preset="clean-fid"), samples, reference).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("preset", ["none", *PRESETS])
def test_the_value_is_the_same_at_each_run_and_leaves_the_global_stream_alone(features, preset):
    """Codes that draw from NumPy's global stream give a new value at every run."""
    pair = [part[:, :4] for part in features]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (_score(KernelDistance(preset=preset), *pair) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_error_is_of_the_value_and_not_the_spread_of_subsets(features):
    """With subsets as large as the sets all subsets are one, and their spread says the value is exact."""
    samples, reference = (part[:1000] for part in features)
    drawn = kernel_distance_of_subsets(samples, reference, rule=RULES["torch-fidelity"])
    assert drawn.values.std() < 1e-12
    assert drawn.mean.stderr == pytest.approx(kernel_distance(samples, reference).stderr, rel=1e-6)
    assert drawn.mean.stderr > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "n", "m", "size"), [(0.0, 200, 200, 8), (0.1, 150, 250, 8), (0.2, 150, 150, 2), (0.5, 300, 200, 8)]
)
def test_intervals_cover_the_population_value(shift, n, m, size):
    """Near zero most of all, where the value and its standard error are low together."""
    random = np.random.default_rng(1)
    truth, hits = _population(shift, size), []
    for _ in range(600):
        found = kernel_distance(random.normal(size=(n, size)) + shift, random.normal(size=(m, size)))
        assert found.ci95[0] <= found.value <= found.ci95[1]
        hits.append(found.ci95[0] <= truth <= found.ci95[1])
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "n", "m", "size"),
    [(0.0, 200, 200, 8), (0.0, 150, 150, 2), (0.0, 200, 300, 32), (0.05, 200, 200, 8), (0.2, 200, 200, 8)],
)
def test_the_standard_error_and_the_interval_are_both_those_of_the_spread_of_values(shift, n, m, size):
    """For equal laws and for different ones; 1,500 values tell their own spread to about 2 %."""
    random, truth = np.random.default_rng(5), _population(shift, size)
    draws = ((random.normal(size=(n, size)) + shift, random.normal(size=(m, size))) for _ in range(1500))
    found = [kernel_distance(*pair) for pair in draws]
    values, errors = (np.array([one.value for one in found]), np.array([one.stderr for one in found]))
    assert errors.mean() / values.std(ddof=1) == pytest.approx(1.0, abs=0.07)
    assert 0.92 <= np.mean([one.ci95[0] <= truth <= one.ci95[1] for one in found]) <= 0.98
    first, second = slice(0, None, 2), slice(1, None, 2)
    alarms = np.abs(values[first] - values[second]) > 1.96 * np.hypot(errors[first], errors[second])
    assert alarms.mean() <= 0.06  # as audits and tables compare two scores


@pytest.mark.slow
def test_intervals_of_subset_means_cover_the_population_value():
    random = np.random.default_rng(3)
    metric, truth, hits = KernelDistance(estimator="subsets", num_subsets=20, subset_size=50), _population(0.3, 6), []
    for _ in range(400):
        samples, reference = random.normal(size=(200, 6)) + 0.3, random.normal(size=(250, 6))
        score = _score(metric, torch.from_numpy(samples), torch.from_numpy(reference))
        hits.append(score.ci95[0] <= truth <= score.ci95[1])
    assert 0.92 <= np.mean(hits) <= 0.98


def test_the_scale_is_one_and_is_said(features):
    score = _score(KernelDistance(), *features)
    assert (score.name, score.unit, score.protocol["scale"]) == ("kid", "MMD^2", 1)


def test_only_the_cubic_kernel_over_inception_is_called_kid(features):
    assert _score(KernelDistance(kernel="rbf"), *features).name == "kd_rbf_inception_v3"
    (score,) = KernelDistance().compute(_evidence(*features, extractor="dinov2"))
    assert score.name == "kd_dinov2"


def test_two_presets_are_never_taken_for_the_same_protocol(features):
    pair = [part[:, :3] for part in features]
    protocols = [str(_score(KernelDistance(preset=preset), *pair).protocol) for preset in ("none", "mmd-gan", "fld")]
    assert len(set(protocols)) == 3


@pytest.mark.parametrize(
    ("preset", "least"), [("torch-fidelity", 1000), ("mmd-gan", 1000), ("clean-fid", 2), ("fld", 4)]
)
def test_a_preset_says_how_many_examples_it_needs(features, preset, least):
    samples, reference = (part[: least - 1] for part in features)
    with pytest.raises(ValueError, match=rf"{preset}.*at least {least} samples.*found {least - 1}"):
        _score(KernelDistance(preset=preset), samples, reference)
    assert _score(KernelDistance(preset=preset), *(part[:least] for part in features)).stderr is not None


@pytest.mark.parametrize(
    "text",
    ["kernel_distance[preset=fld,num_subsets=5]", "kernel_distance[kernel=rbf,sigma=0.0]", "kernel_distance[preset=x]"],
)
def test_settings_that_contradict_each_other_are_refused(text):
    with pytest.raises(SettingError, match=r"found|expected"):
        build_metric(parse_ref(text))


def test_widths_that_differ_are_refused():
    with pytest.raises(ValueError, match="one width"):
        kernel_distance(np.zeros((5, 3)), np.zeros((5, 4)))
