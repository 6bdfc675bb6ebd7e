"""Streams of rows however they are cut, shuffled, offset and merged."""

import numpy as np
import pytest
import torch

from genbench.prob.moments import Moments, moments_of


def _rows(num=3000, size=24, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(num, size)) @ random.normal(size=(size, size))


def _error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_any_sharding_and_order_of_merges_equals_one_pass(offset):
    rows = _rows() + offset
    expected = np.cov(rows, rowvar=False)
    random = np.random.default_rng(1)
    for trial in range(10):
        shuffled = random.permutation(rows)
        cuts = np.sort(random.choice(len(rows) - 1, 6, replace=False) + 1)
        shards = [Moments(24).add(part) for part in np.split(shuffled, cuts)]
        while len(shards) > 1:
            one = shards.pop(int(random.integers(len(shards))))
            shards[int(random.integers(len(shards)))].merge(one)
        (found,) = shards
        assert found.count == len(rows)
        assert _error(found.mean, rows.mean(axis=0)) < 1e-12, trial
        assert _error(found.covariance(), expected) < 1e-12, trial


@pytest.mark.slow
def test_any_sharding_of_many_wide_features_equals_one_pass():
    rows = np.random.default_rng(2).normal(size=(8000, 512)).astype(np.float32)
    whole = moments_of(rows)
    shards = [Moments(512).add(part) for part in np.array_split(rows[::-1], 7)]
    merged = Moments(512)
    for shard in shards:
        merged.merge(shard)
    assert _error(merged.covariance(), whole.covariance()) < 1e-12
    assert _error(whole.covariance(), np.cov(rows.astype(np.float64), rowvar=False)) < 1e-12


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 15 s of processor time, on a machine that may be busy
@pytest.mark.parametrize(("offset", "allowed"), [(0.0, 1e-12), (1e4, 1e-11), (1e6, 1e-9)])
def test_any_sharding_of_50_000_features_of_2048_equals_one_pass(offset, allowed):
    """The size of a published FID: unequal shards of shuffled single-precision rows, merged two by two at random."""
    random = np.random.default_rng(5)
    rows = random.standard_normal((50_000, 2048), dtype=np.float32)
    rows += np.float32(offset)
    order, cuts = random.permutation(len(rows)), np.sort(random.choice(len(rows) - 1, 12, replace=False) + 1)
    shards = [Moments(2048).add(rows[part]) for part in np.split(order, cuts)]
    while len(shards) > 1:
        one = shards.pop(int(random.integers(len(shards))))
        shards[int(random.integers(len(shards)))].merge(one)
    (merged,) = shards
    assert merged.count == len(rows)
    if offset:
        mean, expected = _moments_without(offset, rows)
    else:
        whole = moments_of(rows)
        mean, expected = whole.mean, whole.covariance()
    assert np.abs(merged.mean - offset - mean).max() < allowed
    assert _error(merged.covariance(), expected) < allowed


def _moments_without(offset, rows):
    """Mean beyond the offset and covariance, by plain sums once the offset is taken off, which rounds nothing."""
    total, product = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
    for part in np.array_split(rows, 20):
        exact = part.astype(np.float64) - offset
        total += exact.sum(axis=0)
        product += exact.T @ exact
    mean = total / len(rows)
    return mean, (product - len(rows) * np.outer(mean, mean)) / (len(rows) - 1)


@pytest.mark.parametrize(("offset", "allowed"), [(1e4, 1e-11), (1e6, 1e-9)])
def test_an_offset_of_the_features_costs_few_digits_of_the_covariance(offset, allowed):
    """Raw second moments, as most programs keep them, lose 1e-6 and 1e-2 here."""
    shifted = np.random.default_rng(3).normal(size=(4000, 64)) + offset
    expected = np.cov(shifted - offset, rowvar=False)  # exact: the offset is subtracted without rounding
    found = Moments(64)
    for part in np.array_split(shifted, 23):
        found.add(part)
    assert np.abs(found.covariance() - expected).max() < allowed
    raw = shifted.T @ shifted - len(shifted) * np.outer(shifted.mean(axis=0), shifted.mean(axis=0))
    assert np.abs(raw / (len(shifted) - 1) - expected).max() > allowed


def test_one_row_at_a_time_equals_one_pass():
    rows = _rows(200, 5) + 1e3
    found = Moments(5)
    for row in rows:
        found.add(row[None])
    np.testing.assert_allclose(found.covariance(), np.cov(rows, rowvar=False), rtol=1e-10)


def test_an_accumulator_is_resumed_from_its_arrays():
    rows = _rows()
    half = Moments(24).add(rows[:1000])
    resumed = Moments.from_arrays(half.to_arrays()).add(rows[1000:])
    np.testing.assert_array_equal(resumed.scatter, half.add(rows[1000:]).scatter)
    np.testing.assert_array_equal(resumed.mean, half.mean)


def test_merging_leaves_the_other_alone_and_empty_ones_change_nothing():
    one, other = Moments(24).add(_rows(50)), Moments(24).add(_rows(70, seed=1))
    before = other.to_arrays()
    one.merge(other).merge(Moments(24))
    assert one.count == 120
    for key, value in other.to_arrays().items():
        np.testing.assert_array_equal(value, before[key])
    np.testing.assert_array_equal(Moments(24).merge(other).scatter, other.scatter)
    np.testing.assert_array_equal(one.add(np.empty((0, 24))).mean, one.mean)


def test_rows_stay_as_they_are_and_the_scatter_is_symmetric():
    rows = _rows(100, 70)
    kept = rows.copy()
    found = moments_of(rows)
    np.testing.assert_array_equal(rows, kept)
    np.testing.assert_array_equal(found.scatter, found.scatter.T)
    found.scatter[:] = 0.0
    assert found.scatter.any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_promoted_before_it_is_summed(kind):
    rows = (torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) * 100.0).to(kind)
    exact = rows.double().numpy()
    found = moments_of(rows)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance(0), np.cov(exact, rowvar=False, ddof=0), rtol=1e-11)


def test_bad_rows_and_bad_arrays_are_refused():
    with pytest.raises(ValueError, match=r"shape \(N, 3\), found \(4, 2\)"):
        Moments(3).add(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="finite"):
        Moments(2).add(np.array([[1.0, np.inf]]))
    with pytest.raises(ValueError, match="at least 2 rows, found 1"):
        Moments(2).add(np.zeros((1, 2))).covariance()
    with pytest.raises(ValueError, match="2 features cannot take in those of 3"):
        Moments(2).merge(Moments(3))
    with pytest.raises(ValueError, match="none named mean"):
        Moments.from_arrays({"count": np.array(1), "scatter": np.eye(2)})
    with pytest.raises(ValueError, match="shapes"):
        Moments.from_arrays({"count": np.array(1), "mean": np.zeros(3), "scatter": np.eye(2)})


def test_a_constant_feature_has_no_variance_at_all():
    assert moments_of(np.full((1000, 2), 0.1, dtype=np.float32)).covariance().max() < 1e-30
