import math

import numpy as np
import pytest
from scipy import stats

from genbench.prob.rounds import (
    autocorrelation,
    geometric_mean,
    num_outliers,
    paired_log_ratio,
    quantile_interval,
    summarise,
    unpaired_log_ratio,
)


def _summary(rounds):
    return summarise(rounds, name="latency_seconds", unit="s", better="lower")


def test_three_rounds_give_the_geometric_mean_of_their_medians_and_the_t_interval_of_their_logarithms():
    found = _summary([[1.0, 2.0, 3.0], [4.0, 4.0, 5.0], [8.0, 1.0, 9.0]])  # medians 2, 4, 8
    assert found.medians == (2.0, 4.0, 8.0)
    assert found.value == pytest.approx(4.0)
    half = 4.302652729911275 * math.log(2.0) / math.sqrt(3.0)  # the logarithms are log 4 -+ log 2
    assert found.ci95 == pytest.approx((4.0 * math.exp(-half), 4.0 * math.exp(half)))


def test_the_interval_is_that_of_scipy():
    medians = [1.02, 0.98, 1.05, 1.11, 0.97]
    theirs = stats.ttest_1samp(np.log(medians), 0.0).confidence_interval(0.95)
    assert geometric_mean(medians)[1] == pytest.approx((math.exp(theirs.low), math.exp(theirs.high)), rel=1e-12)
    assert geometric_mean(medians)[0] == pytest.approx(stats.gmean(medians), rel=1e-12)


def test_one_round_has_no_interval():
    found = _summary([[1.0, 2.0, 3.0]])
    assert (found.value, found.ci95, found.medians) == (pytest.approx(2.0), None, (2.0,))


def test_a_unit_a_thousand_times_smaller_changes_the_value_and_nothing_else():
    rounds = np.random.default_rng(1).lognormal(size=(4, 30))
    seconds, milliseconds = _summary(rounds), _summary(1e3 * rounds)
    assert milliseconds.value == pytest.approx(1e3 * seconds.value)
    assert milliseconds.ci95 == pytest.approx(tuple(1e3 * end for end in seconds.ci95))
    assert milliseconds.interquartile == pytest.approx(seconds.interquartile)
    assert milliseconds.outliers == seconds.outliers
    assert milliseconds.autocorrelation == pytest.approx(seconds.autocorrelation)


def test_the_spread_within_rounds_does_not_see_the_spread_between_them():
    round_ = [0.9, 1.0, 1.1, 1.0, 1.0]
    assert _summary([round_, [2.0 * value for value in round_]]).interquartile == pytest.approx(
        _summary([round_]).interquartile
    )
    assert _summary([[1.0, 2.0, 3.0, 4.0, 5.0]]).interquartile == pytest.approx(2.0 / 3.0)


def test_a_reading_far_from_the_others_of_its_round_is_counted_and_kept():
    found = _summary([[1.0, 1.1, 0.9, 1.0, 7.0], [7.0, 7.1, 6.9, 7.0, 7.0]])
    assert found.outliers == 1 + 2  # 7.0 among ones; 7.1 and 6.9 beside three equal values
    assert found.quantiles["p90"][0] == pytest.approx(np.quantile([1, 1.1, 0.9, 1, 7, 7, 7.1, 6.9, 7, 7], 0.9))


def test_a_share_of_seven_in_a_thousand_normal_values_lies_beyond_the_fences():
    values = np.random.default_rng(0).normal(size=200_000)
    assert num_outliers(values) / len(values) == pytest.approx(0.00698, abs=0.0008)


def test_autocorrelation_of_alternating_of_constant_and_of_drifting_readings():
    assert autocorrelation(np.array([1.0, -1.0] * 50)) == pytest.approx(-0.99)
    assert autocorrelation(np.full(10, 3.0)) is None
    assert autocorrelation(np.array([1.0, 2.0])) is None
    steps = np.zeros(50_000)
    for i, noise in enumerate(np.random.default_rng(0).normal(size=49_999)):
        steps[i + 1] = 0.6 * steps[i] + noise
    assert autocorrelation(steps) == pytest.approx(0.6, abs=0.02)


def test_autocorrelation_is_averaged_over_the_rounds_that_have_one():
    assert _summary([[2.0, 1.0] * 50, [3.0, 3.0, 3.0]]).autocorrelation == pytest.approx(-0.99)
    assert _summary([[3.0, 3.0, 3.0]]).autocorrelation is None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("num", [5, 20, 100, 400, 1000])
def test_intervals_of_quantiles_are_those_of_scipy(num, q):
    values = np.random.default_rng(num).lognormal(size=num)
    value, low, high = quantile_interval(values, q)
    theirs = stats.quantile_test(values, p=q).confidence_interval(0.95)
    assert value == pytest.approx(np.quantile(values, q))
    assert [math.nan if end is None else end for end in (low, high)] == pytest.approx(list(theirs), nan_ok=True)


def test_the_median_of_ten_values_lies_between_the_second_and_the_ninth():
    assert quantile_interval(range(1, 11), 0.5) == (5.5, 2.0, 9.0)  # the textbook's ranks: coverage 0.979


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_intervals_of_quantiles_hold_the_truth_at_least_95_times_in_100(q):
    draws = np.random.default_rng(3).exponential(size=(1500, 60))
    truth = -math.log(1.0 - q)
    held = np.mean([low <= truth <= high for _, low, high in (quantile_interval(row, q) for row in draws)])
    assert held > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1500)
    assert held < 0.99


def test_the_99th_percentile_needs_three_hundred_readings():
    assert set(_summary([[1.0] * 299]).quantiles) == {"p50", "p90"}
    assert set(_summary([[1.0] * 150, [1.0] * 150]).quantiles) == {"p50", "p90", "p99"}


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0, 0.0]], [[1.0], [-1.0]], [[math.nan]]])
def test_readings_that_have_no_logarithm_are_refused(rounds):
    with pytest.raises(ValueError, match=r"rounds|readings"):
        _summary(rounds)


def test_intervals_over_rounds_hold_the_truth_where_those_of_pooled_readings_do_not():
    """Five processes with luck of their own (deviation 3 %) and 20 readings each (2 %)."""
    rng = np.random.default_rng(0)
    held = pooled_held = 0
    for _ in range(2000):
        rounds = np.exp(rng.normal(0.0, 0.03, (5, 1)) + rng.normal(0.0, 0.02, (5, 20)))
        low, high = geometric_mean(np.median(rounds, axis=1))[1]
        held += low <= 1.0 <= high
        low, high = geometric_mean(rounds.ravel())[1]
        pooled_held += low <= 1.0 <= high
    assert held / 2000 == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
    assert pooled_held / 2000 < 0.6


def test_the_paired_ratio_cancels_what_both_rounds_share():
    weather = np.exp(np.random.default_rng(0).normal(0.0, 0.3, 5))
    found = paired_log_ratio(weather, 1.1 * weather)
    assert (found.estimate, found.low, found.high) == pytest.approx((math.log(1.1),) * 3, abs=1e-9)
    apart = unpaired_log_ratio(weather, 1.1 * weather)
    assert apart.low < 0.0 < apart.high


def test_the_paired_ratio_is_scipys_paired_t_test_of_logarithms():
    base, head = [1.0, 1.1, 0.9, 1.2, 1.05], [1.08, 1.15, 1.01, 1.25, 1.2]
    found, theirs = paired_log_ratio(base, head, level=0.98), stats.ttest_rel(np.log(head), np.log(base))
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.98)), rel=1e-12)
