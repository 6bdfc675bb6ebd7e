import numpy as np
import pytest
from scipy import stats

from genbench.prob.rank_test import rank_test


def test_z_is_the_standardised_u_of_scipy_ties_included():
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 9, 40).astype(float), generator.integers(1, 10, 55).astype(float)
    u = stats.mannwhitneyu(x, y).statistic
    expected = (u - 40 * 55 / 2 + 0.5) / np.sqrt(40 * 55 * 96 / 12)
    assert rank_test(x, y).z == pytest.approx(expected, rel=1e-12)


def test_smaller_values_are_far_below_zero_without_spread():
    found = rank_test(np.arange(50.0), np.arange(50.0) + 100.0)
    assert found.z == pytest.approx((0.5 - 1250.0) / np.sqrt(2500 * 101 / 12))
    assert found.stderr == 0.0


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_standard_error_is_the_spread_over_repetitions(shift):
    generator = np.random.default_rng(1)
    runs = [rank_test(generator.normal(size=80) + shift, generator.normal(size=60)) for _ in range(500)]
    spread = np.std([run.z for run in runs], ddof=1)
    assert np.mean([run.stderr for run in runs]) == pytest.approx(spread, rel=0.12)
    assert shift > 0 or spread == pytest.approx(1.0, rel=0.12)
