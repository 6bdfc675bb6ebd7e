import numpy as np
import pytest

from genbench.prob import discrepancy
from genbench.prob.polynomial_kernel import mean_discrepancy, subset_discrepancies


def _by_hand(x: np.ndarray, y: np.ndarray) -> float:
    def mean(pairs):
        return np.mean([(a @ b / len(a) + 1.0) ** 3 for a, b in pairs])

    within_x = mean([(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
    within_y = mean([(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j])
    return within_x + within_y - 2.0 * mean([(a, b) for a in x for b in y])


@pytest.mark.parametrize("rows", [4, 1024])
def test_all_pairs_equal_the_sum_by_hand_in_any_blocks(rows, monkeypatch):
    monkeypatch.setattr(discrepancy, "ROWS", rows)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(13, 5)), random.normal(size=(9, 5)) + 0.5
    assert mean_discrepancy(x, y).value == pytest.approx(_by_hand(x, y), rel=1e-12)


def test_discrepancy_of_equal_laws_is_zero_in_the_mean():
    random = np.random.default_rng(1)
    values = [mean_discrepancy(*random.normal(size=(2, 60, 6))).value for _ in range(400)]
    assert abs(np.mean(values)) < 3.0 * np.std(values, ddof=1) / 20.0
    assert min(values) < 0.0


def test_discrepancy_is_unchanged_by_a_common_rotation():
    random = np.random.default_rng(2)
    x, y = random.normal(size=(50, 7)), random.normal(size=(40, 7)) + 0.3
    rotation = np.linalg.qr(random.normal(size=(7, 7)))[0]
    assert mean_discrepancy(x @ rotation, y @ rotation).value == pytest.approx(mean_discrepancy(x, y).value, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_standard_error_matches_the_spread_over_repetitions(shift):
    random = np.random.default_rng(3)
    found = [mean_discrepancy(random.normal(size=(150, 8)) + shift, random.normal(size=(250, 8))) for _ in range(300)]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.sqrt(np.mean([one.stderr**2 for one in found])) / spread == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("num_subsets", [5, 200], ids=["subset by subset", "all pairs once"])
def test_subsets_of_everything_equal_all_pairs(num_subsets):
    random = np.random.default_rng(4)
    x, y = random.normal(size=(30, 4)), random.normal(size=(30, 4)) + 1.0
    values = subset_discrepancies(x, y, num_subsets=num_subsets, size=30, seed=0)
    np.testing.assert_allclose(values, mean_discrepancy(x, y).value, rtol=1e-10)


def test_both_ways_to_sum_over_subsets_agree():
    random = np.random.default_rng(5)
    x, y = random.normal(size=(50, 4)), random.normal(size=(60, 4)) + 1.0
    few = subset_discrepancies(x, y, num_subsets=5, size=20, seed=3)
    many = subset_discrepancies(x, y, num_subsets=40, size=20, seed=3)
    np.testing.assert_allclose(few, many[:5], rtol=1e-10)
