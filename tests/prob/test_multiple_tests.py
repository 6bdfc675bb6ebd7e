import numpy as np
import pytest
from scipy import stats

from genbench.prob.multiple_tests import benjamini_hochberg, holm


def test_adjusted_values_are_those_of_a_worked_example():
    """p = .01, .04, .03, .005 of four tests: 4 x .005, 3 x .01, 2 x .03, then no less than the one before."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_one_test_alone_is_not_adjusted():
    assert holm(np.array([0.2])) == pytest.approx([0.2])


def test_false_alarms_over_many_true_hypotheses_stay_below_the_level():
    p = np.random.default_rng(0).random((4000, 6))
    alarms = np.mean([(holm(row) < 0.05).any() for row in p])
    assert 0.035 < alarms < 0.06


def test_values_adjusted_for_the_share_of_false_alarms_are_those_of_scipy():
    p = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p, method="bh"))


def test_the_worked_example_of_benjamini_and_hochberg_has_four_rejections():
    """The 15 p-values of their Sec. 4.1: four at a level of 5 %, where Bonferroni's rule has three."""
    p = np.array(
        [1e-4, 4e-4, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759, 1]
    )
    assert (benjamini_hochberg(p) <= 0.05).sum() == 4
    assert (holm(p) <= 0.05).sum() == 3


def test_the_share_of_false_alarms_among_all_alarms_stays_below_the_level():
    """12 tests of which four are true shifts of three deviations: 5 % times 8/12 in expectation."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4000, 12)) + np.where(np.arange(12) < 4, 3.0, 0.0)
    alarms = np.array([benjamini_hochberg(2 * stats.norm.sf(np.abs(row))) <= 0.05 for row in z])
    shares = alarms[:, 4:].sum(1) / np.maximum(alarms.sum(1), 1)
    assert shares.mean() < 0.05 * 8 / 12 + 0.006
    assert alarms[:, :4].mean() > 0.6


def test_no_tests_need_no_adjustment():
    assert benjamini_hochberg(np.array([])).shape == (0,)
