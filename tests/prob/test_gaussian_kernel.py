import numpy as np
import pytest
import torch

from genbench.prob import discrepancy
from genbench.prob.discrepancy import draw_subsets
from genbench.prob.gaussian_kernel import (
    GaussianKernel,
    gaussian_discrepancy,
    gaussian_discrepancy_biased,
    gaussian_subset_mean,
)


def _kernel(x, y, sigma):
    return np.exp(-np.square(x[:, None] - y[None]).sum(axis=2) / (2.0 * sigma**2))


def _sets(seed=0, n=17, m=12, size=4):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, size)), random.normal(size=(m, size)) + 0.7


@pytest.mark.parametrize("rows", [5, 1024])
def test_both_estimators_equal_their_definitions_in_any_blocks(rows, monkeypatch):
    monkeypatch.setattr(discrepancy, "ROWS", rows)
    x, y = _sets()
    xx, yy, xy = _kernel(x, x, 1.5), _kernel(y, y, 1.5), _kernel(x, y, 1.5)
    biased = xx.mean() + yy.mean() - 2.0 * xy.mean()
    unbiased = (xx.sum() - 17) / (17 * 16) + (yy.sum() - 12) / (12 * 11) - 2.0 * xy.mean()
    assert gaussian_discrepancy_biased(x, y, sigma=1.5).value == pytest.approx(biased, rel=1e-12)
    assert gaussian_discrepancy(x, y, sigma=1.5).value == pytest.approx(unbiased, rel=1e-12)


def test_discrepancy_does_not_see_a_common_shift_however_far():
    x, y = _sets()
    near, far = gaussian_discrepancy(x, y, sigma=2.0), gaussian_discrepancy(x + 1e4, y + 1e4, sigma=2.0)
    assert far.value == pytest.approx(near.value, rel=1e-9)
    assert far.stderr == pytest.approx(near.stderr, rel=1e-9)


def test_biased_discrepancy_of_a_set_with_itself_is_zero():
    x, _ = _sets()
    assert gaussian_discrepancy_biased(x, x, sigma=1.0).value == pytest.approx(0.0, abs=1e-15)


def test_subset_of_everything_is_the_whole():
    x, y = _sets(n=15, m=15)
    draws = draw_subsets(15, 15, num_subsets=3, size=15, random=np.random.RandomState(0))
    found = gaussian_subset_mean(x, y, draws, sigma=1.5)
    np.testing.assert_allclose(found.values, gaussian_discrepancy(x, y, sigma=1.5).value, rtol=1e-12)


def test_single_precision_sets_are_computed_in_double():
    x, y = (torch.from_numpy(part).float() for part in _sets())
    assert gaussian_discrepancy(x, y, sigma=9.0) == gaussian_discrepancy(x.double(), y.double(), sigma=9.0)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 1.0, 1.3), (0.5, 0.9, 1.1)])
def test_standard_error_matches_the_spread_over_repetitions(shift, low, high):
    """Of equal laws it is overstated: their first-order variance is zero, and its estimate is not."""
    random = np.random.default_rng(3)
    found = [
        gaussian_discrepancy(random.normal(size=(90, 3)) + shift, random.normal(size=(140, 3)), sigma=1.0)
        for _ in range(300)
    ]
    spread = np.std([one.value for one in found], ddof=1)
    assert low < np.sqrt(np.mean([one.stderr**2 for one in found])) / spread < high


def test_a_kernel_without_width_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        GaussianKernel(0.0)
