import numpy as np
import pytest

from genbench.prob.intervals import normal_interval, share_interval


def test_normal_interval_is_cut_to_what_is_possible():
    assert normal_interval(1.0, 1.0, low=0.0) == (0.0, pytest.approx(2.96, abs=1e-3))
    assert normal_interval(0.9, 0.1, low=0.0, high=1.0)[1] == 1.0


def test_share_interval_holds_the_shares_that_a_score_test_does_not_reject():
    """At both ends |share - end| is exactly 1.96 standard errors under the end."""
    low, high = share_interval(0.3, 50)
    for end in (low, high):
        assert abs(0.3 - end) / np.sqrt(end * (1 - end) / 50) == pytest.approx(1.959964, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_share_interval_is_not_empty_at_the_ends_and_holds_the_share(share):
    low, high = share_interval(share, 40)
    assert low <= share <= high
    assert high - low == pytest.approx(1.96**2 / (40 + 1.96**2), rel=1e-3)


@pytest.mark.parametrize("true", [0.03, 0.5, 0.9])
def test_share_interval_covers_the_truth_about_95_times_in_100(true):
    hits = np.random.default_rng(0).binomial(100, true, 2000)
    covered = [low <= true <= high for low, high in (share_interval(hit / 100, 100) for hit in hits)]
    assert 0.92 < np.mean(covered) < 0.98
