import math

import numpy as np
import pytest
from scipy import stats

from genbench.prob.shift import paired_shift, shift, unpaired_shift

FIRST = [5.1, 4.9, 6.0, 5.5, 5.2]
SECOND = [5.6, 5.0, 6.3, 6.1, 5.4]


def test_a_paired_shift_is_that_of_scipy():
    found, theirs = paired_shift(FIRST, SECOND), stats.ttest_rel(SECOND, FIRST)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)


def test_an_unpaired_shift_is_welchs_of_scipy():
    found, theirs = unpaired_shift(FIRST, SECOND[:4]), stats.ttest_ind(SECOND[:4], FIRST, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)


def test_the_chance_above_a_bound_is_scipys_one_sided_test():
    found = paired_shift(FIRST, SECOND)
    moved = [value - 0.1 for value in SECOND]
    assert found.p_above(0.1) == pytest.approx(stats.ttest_rel(moved, FIRST, alternative="greater").pvalue, rel=1e-9)


def test_the_interval_leaves_the_tolerance_exactly_where_the_chance_falls_to_one_minus_the_level():
    found = paired_shift(FIRST, SECOND, level=0.99)
    assert found.p_beyond(found.low) == pytest.approx(0.01, rel=1e-9)
    assert found.p_beyond(found.low - 1e-6) < 0.01 < found.p_beyond(found.low + 1e-6)


def test_a_shift_downwards_counts_as_one_upwards():
    up, down = paired_shift(FIRST, SECOND), paired_shift(SECOND, FIRST)
    assert up.p_beyond(0.05) == pytest.approx(down.p_beyond(0.05), rel=1e-12)


def test_values_without_spread_are_certain():
    same, moved = paired_shift([1.0, 2.0], [1.0, 2.0]), paired_shift([1.0, 2.0], [2.0, 3.0])
    assert (same.low, same.high, same.p, same.p_beyond(0.0)) == (0.0, 0.0, 1.0, 1.0)
    assert (moved.low, moved.high, moved.p, moved.p_beyond(0.5)) == (1.0, 1.0, 0.0, 0.0)
    assert moved.p_beyond(1.0) == 1.0
    assert unpaired_shift([1.0, 1.0], [2.0, 2.0]).estimate == 1.0


def test_a_known_standard_error_gives_the_normal_interval():
    found = shift(1.0, 0.5, math.inf)
    assert (found.low, found.high) == pytest.approx((1.0 - 1.959963985 * 0.5, 1.0 + 1.959963985 * 0.5))


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0]), ([1.0, 2.0], [1.0])])
def test_too_few_values_are_refused(first, second):
    with pytest.raises(ValueError, match="two or more"):
        paired_shift(first, second)
    with pytest.raises(ValueError, match="two or more"):
        unpaired_shift(first, second)


def test_intervals_hold_the_truth_at_their_level():
    """2,000 draws of five pairs: the share of misses is 5 % within four deviations of a binomial count."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(2000, 5))
    head = base + 0.3 + 0.7 * rng.normal(size=(2000, 5))
    missed = np.mean([not (s.low <= 0.3 <= s.high) for s in map(paired_shift, base, head)])
    assert missed == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
