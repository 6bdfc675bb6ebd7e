import numpy as np
import pytest

from genbench.prob.multiple_tests import holm


def test_adjusted_values_are_those_of_a_worked_example():
    """p = .01, .04, .03, .005 of four tests: 4 x .005, 3 x .01, 2 x .03, then no less than the one before."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_one_test_alone_is_not_adjusted():
    assert holm(np.array([0.2])) == pytest.approx([0.2])


def test_false_alarms_over_many_true_hypotheses_stay_below_the_level():
    p = np.random.default_rng(0).random((4000, 6))
    alarms = np.mean([(holm(row) < 0.05).any() for row in p])
    assert 0.035 < alarms < 0.06
