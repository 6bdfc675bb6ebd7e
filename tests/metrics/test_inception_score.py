import warnings

import numpy as np
import pytest
import torch

from genbench.core.metric import Evidence, LogitEvidence
from genbench.metrics.inception_score import InceptionScore, inception_score, inception_score_parts

PRESETS = ("torch-fidelity", "openai", "adm", "single")


def _certain(classes, num_classes):
    """Logits of a classifier without doubt: exp(-1000) is 0 in double precision."""
    return torch.nn.functional.one_hot(torch.as_tensor(classes), num_classes).double() * 1000.0


def _random(num, num_classes, *, seed=0, sharpness=2.0):
    return torch.randn(num, num_classes, generator=torch.Generator().manual_seed(seed)) * sharpness


def _by_hand(logits, bounds):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return [np.exp((p[a:b] * (np.log(p[a:b]) - np.log(p[a:b].mean(axis=0)))).sum(axis=1).mean()) for a, b in bounds]


@pytest.mark.parametrize("preset", ["openai", "single", "adm"])
def test_certain_and_varied_samples_score_the_number_of_classes(preset):
    assert inception_score(_certain(np.arange(700) % 7, 7), preset=preset).value == pytest.approx(7.0, rel=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_samples_that_are_all_alike_score_one(preset):
    assert inception_score(_certain([3] * 100, 7), preset=preset).value == pytest.approx(1.0, rel=1e-12)
    assert inception_score(torch.ones(100, 7), preset=preset).value == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("num", [12, 101, 1000])
@pytest.mark.parametrize("preset", ["torch-fidelity", "openai"])
def test_ten_parts_equal_those_of_torch_fidelity(num, preset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = _random(num, 20)
    expected = isc_features_to_metric(logits, shuffle=preset == "torch-fidelity")
    assert inception_score(logits, preset=preset).value == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    spread = inception_score_parts(logits, preset=preset).values.std()
    assert spread == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(("num", "sizes"), [(12, {1, 2}), (101, {10, 11})])
def test_counts_that_do_not_divide_still_give_ten_parts_of_nearly_one_size(num, sizes):
    """Cutting into equal chunks gives 6 parts for 12 samples, and parts of 11, ..., 11, 2 for 101."""
    parts = inception_score_parts(_random(num, 5), preset="openai")
    assert len(parts.sizes) == 10
    assert set(parts.sizes) == sizes


def test_no_sample_is_dropped_where_counts_do_not_divide():
    """Whole parts of N // 10 would never see the last nine samples."""
    logits = _random(109, 4).numpy()
    bounds = [(i * 109 // 10, (i + 1) * 109 // 10) for i in range(10)]
    assert inception_score(logits, preset="openai").value == pytest.approx(np.mean(_by_hand(logits, bounds)), rel=1e-6)
    assert inception_score_parts(logits, preset="openai").sizes.sum() == 109
    changed = logits.copy()
    changed[-1] += [9.0, 0.0, 0.0, 0.0]
    assert inception_score(changed, preset="openai").value != inception_score(logits, preset="openai").value


def test_a_short_last_part_counts_by_its_size():
    """Two parts of 5000 that score 10 and one of 3 that cannot score more than 3."""
    found = inception_score(_certain(np.arange(10_003) % 10, 10), preset="adm")
    assert found.value == pytest.approx((10_000 * 10.0 + 3 * 3.0) / 10_003, rel=1e-12)
    counted_as_whole = (10.0 + 10.0 + 3.0) / 3.0
    assert found.value > counted_as_whole + 2.0


def test_parts_of_one_size_have_the_plain_mean_of_the_original():
    logits = _random(10_000, 6).numpy()
    expected = np.mean(_by_hand(logits, [(0, 5000), (5000, 10_000)]))
    assert inception_score(logits, preset="adm").value == pytest.approx(expected, rel=1e-6)


def test_samples_in_order_of_their_class_keep_their_score_by_default():
    logits = _certain(np.arange(1000) // 100, 10)
    assert inception_score(logits).value > 9.0
    assert inception_score(logits, preset="openai").value == pytest.approx(1.0, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["single", "openai"])
def test_intervals_cover_the_expected_value(preset):
    """Centred on the mean over repetitions: the small-sample bias is declared, not covered."""
    found = [inception_score(_random(600, 3, seed=i), preset=preset) for i in range(600)]
    truth = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= truth <= one.ci95[1] for one in found]) <= 0.98


def test_the_error_of_one_part_is_the_spread_of_divergences():
    """A classifier that is certain of all has no spread; one that is certain of half has a known one."""
    assert inception_score(_certain(np.arange(100) % 4, 4), preset="single").stderr == pytest.approx(0.0, abs=1e-12)
    mixed = torch.cat([_certain([0, 1] * 25, 2), torch.zeros(50, 2)])
    found = inception_score(mixed, preset="single")
    assert found.value == pytest.approx(2.0**0.5, rel=1e-12)
    assert found.stderr == pytest.approx(2.0**0.5 * np.log(2.0) / 2.0 / 99**0.5, rel=1e-9)


def test_the_metric_names_the_classifier_and_its_parts():
    logits = LogitEvidence(samples=_random(200, 8), extractor="inception_v3", protocol={"sha256": "abc"})
    (score,) = InceptionScore().compute(Evidence(logits=logits))
    assert (score.name, score.better, score.num_samples) == ("inception_score", "higher", 200)
    assert score.protocol["parts"] == "torch-fidelity"
    assert score.protocol["num_parts"] == 10
    assert score.protocol["sha256"] == "abc"
    assert score.ci95[0] <= score.value <= score.ci95[1]
    other = LogitEvidence(samples=_random(200, 8), extractor="shapes_net", protocol={})
    assert InceptionScore(preset="single").compute(Evidence(logits=other))[0].name == "inception_score_shapes_net"


def test_the_value_is_the_same_at_each_run():
    logits = _random(300, 8)
    assert inception_score(logits) == inception_score(logits)


def test_a_part_of_one_sample_has_no_interval_and_says_so():
    found = inception_score(_random(12, 4))
    assert found.stderr is None
    assert found.how.startswith("none")


def test_too_few_or_broken_logits_are_refused():
    with pytest.raises(ValueError, match=r"at least 10 samples.*9"):
        inception_score(_random(9, 4))
    with pytest.raises(ValueError, match=r"at least 2 samples.*1"):
        inception_score(_random(1, 4), preset="single")
    with pytest.raises(ValueError, match="found none"):
        InceptionScore().compute(Evidence())
    broken = LogitEvidence(samples=_random(20, 4) * float("inf"), extractor="inception_v3", protocol={})
    with pytest.raises(ValueError, match="finite"):
        InceptionScore().compute(Evidence(logits=broken))
