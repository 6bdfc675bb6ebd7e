"""The mutual information gap: the loop of the field, codes whose gap is known, and its interval."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from genbench.core.metric import Evidence, LatentEvidence
from genbench.metrics.mig import MIG, mig


def _grid(*sizes):
    """Every combination of factor values once: factors are exactly independent."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*[np.arange(size) for size in sizes])], axis=1)


def _mixed(num=600, *, seed=0, noise=0.6):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in (3, 6, 8)], axis=1)
    return factors + noise * rng.normal(size=(num, 3)) @ (np.eye(3) + 0.5), factors


def _by_loop(codes, factors, num_bins=20):
    bins = np.zeros_like(codes)
    for d in range(codes.shape[1]):
        bins[:, d] = np.digitize(codes[:, d], np.histogram(codes[:, d], num_bins)[1][:-1])
    gaps = []
    for k in range(factors.shape[1]):
        told = sorted(mutual_info_score(factors[:, k], bins[:, d]) for d in range(codes.shape[1]))
        gaps.append((told[-1] - told[-2]) / mutual_info_score(factors[:, k], factors[:, k]))
    return float(np.mean(gaps))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_mig_equals_a_loop_over_pairs_as_the_field_computes_it(dtype, seed):
    codes, factors = _mixed(seed=seed)
    codes = codes.astype(dtype)
    assert mig(codes, factors).value == pytest.approx(_by_loop(codes, factors), abs=1e-12)


def test_single_precision_codes_are_binned_in_single_precision():
    factors = np.arange(11)[:, None]
    codes = np.stack([np.linspace(0.0, 1.0, 11), np.zeros(11)], axis=1).astype(np.float32)
    single, double = (mig(part, factors, num_bins=10).value for part in (codes, codes.astype(np.float64)))
    assert single == pytest.approx(_by_loop(codes, factors, 10), abs=1e-12)
    assert abs(single - double) > 0.01


def test_a_latent_for_each_factor_scores_one():
    factors = _grid(3, 6, 8)
    found = mig(factors.astype(np.float64), factors)
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert found.ci95[0] <= found.value <= found.ci95[1] + 1e-12


def test_noise_scores_nearly_nothing():
    _, factors = _mixed(4000)
    assert mig(np.random.default_rng(5).normal(size=(4000, 6)), factors).value < 0.01


def test_two_copies_of_a_code_have_no_gap():
    factors = _grid(3, 6, 8)
    assert mig(np.concatenate([factors, factors], axis=1).astype(np.float64), factors).value == pytest.approx(
        0, abs=1e-12
    )
    noisy, factors = _mixed(3000, noise=0.2)
    copies = np.concatenate([noisy, noisy + np.random.default_rng(1).normal(size=noisy.shape) * 0.01], axis=1)
    assert mig(copies, factors).value <= 0.1


def test_order_of_latents_factors_and_examples_and_each_latents_scale_do_not_matter():
    codes, factors = _mixed()
    value = mig(codes, factors).value
    rows = np.random.default_rng(0).permutation(len(codes))
    assert mig(codes[:, [2, 0, 1]], factors).value == pytest.approx(value, abs=1e-14)
    assert mig(codes, factors[:, [1, 2, 0]]).value == pytest.approx(value, abs=1e-14)
    assert mig(codes[rows], factors[rows]).value == pytest.approx(value, abs=1e-14)
    assert mig(codes * np.array([0.25, 8.0, 1024.0]), factors).value == pytest.approx(value, abs=1e-14)


def test_half_precision_is_promoted():
    codes, factors = _mixed()
    half = torch.from_numpy(codes).half()
    assert mig(half, factors).value == mig(half.float(), factors).value
    assert mig(half.bfloat16(), factors).value == mig(half.bfloat16().float(), factors).value


def test_the_error_equals_that_of_a_bootstrap_over_examples():
    codes, factors = _mixed(2000)
    bounds = np.array([[-9.0] * 3, [22.0] * 3])  # the same bins in every draw
    codes, factors = np.concatenate([codes, bounds]), np.concatenate([factors, factors[:2]])
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        rows = np.append(rng.integers(2000, size=2000), [2000, 2001])
        draws.append(mig(codes[rows], factors[rows]).value)
    assert mig(codes, factors).stderr == pytest.approx(np.std(draws, ddof=1), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("num", [1000, 5000])
def test_the_interval_holds_the_mean_estimate_95_times_in_100(num):
    found = [mig(*_mixed(num, seed=seed)) for seed in range(500)]
    middle = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found]) <= 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, v: (z[:, :1], v), "at least 2 latents, found 1"),
        (lambda z, v: (z[:1], v[:1]), "at least 2 examples, found 1"),
        (lambda z, v: (z, v * np.array([1, 0, 1])), "single value of factor 1"),
        (lambda z, v: (z * np.nan, v), "finite codes"),
        (lambda z, v: (z[:-1], v), r"codes \(N, D\) and factors \(N, K\)"),
    ],
)
def test_codes_that_cannot_be_scored_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        mig(*change(*_mixed()))


def test_the_score_says_which_estimator_and_factors_it_is_of():
    codes, factors = (torch.from_numpy(part) for part in _mixed())
    found = LatentEvidence(codes=codes, factors=factors, names=("shape", "size", "hue"))
    (score,) = MIG().compute(Evidence(latents=found))
    assert (score.name, score.better, score.num_samples) == ("mig", "higher", 600)
    assert score.protocol == {
        "factors": "shape, size, hue",
        "num_examples": 600,
        "estimator": "plug-in on a histogram",
        "num_bins": 20,
    }
    assert score.interval == "delete-one jackknife over examples; bins held fixed"
    with pytest.raises(ValueError, match="known factors, found none"):
        MIG().compute(Evidence())
    with pytest.raises(ValueError, match="num_bins is 1"):
        MIG(num_bins=1)
