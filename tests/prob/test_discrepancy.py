import numpy as np
import pytest
import torch

from genbench.prob import discrepancy
from genbench.prob.discrepancy import as_floats, draw_subsets
from genbench.prob.polynomial_kernel import mean_discrepancy, subset_mean


def _features(num, *, seed, shift=0.0, size=64):
    random = np.random.default_rng(seed)
    return np.maximum(random.normal(size=(num, size)) * 0.3 + 0.4 + shift, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.2])
def test_single_precision_agrees_with_double(shift):
    """To 1e-8 of kernel values near 2, and the mean over subsets to a millionth of itself."""
    x, y = _features(700, seed=0, shift=shift), _features(800, seed=1)
    draws = draw_subsets(700, 800, num_subsets=30, size=200, random=np.random.RandomState(0))
    single = [part.astype(np.float32) for part in (x, y)]
    exact, fast = (subset_mean(*parts, draws) for parts in ([part.astype(np.float64) for part in single], single))
    np.testing.assert_allclose(fast.values, exact.values, rtol=1e-6, atol=1e-8)
    assert fast.mean.value == pytest.approx(exact.mean.value, rel=1e-6, abs=2e-9)
    assert fast.mean.stderr == pytest.approx(exact.mean.stderr, rel=1e-4)


def test_far_from_zero_single_precision_still_agrees():
    """Kernel values near 64: the constant that is taken off them is what saves the digits."""
    x, y = (_features(600, seed=seed, size=256, shift=1.3).astype(np.float32) for seed in (0, 1))
    assert mean_discrepancy(x + np.float32(0.01), y).value == pytest.approx(
        mean_discrepancy((x + np.float32(0.01)).astype(np.float64), y.astype(np.float64)).value, rel=1e-5
    )


def test_block_size_changes_nothing(monkeypatch):
    x, y = _features(101, seed=0), _features(77, seed=1)
    draws = draw_subsets(101, 77, num_subsets=40, size=30, random=np.random.RandomState(0))
    whole = subset_mean(x, y, draws)
    monkeypatch.setattr(discrepancy, "ROWS", 16)
    cut = subset_mean(x, y, draws)
    np.testing.assert_allclose(cut.values, whole.values, rtol=1e-10)
    assert cut.mean.stderr == pytest.approx(whole.mean.stderr, rel=1e-10)


def test_error_from_a_few_subsets_is_near_that_from_all_pairs(monkeypatch):
    """Large sets are never multiplied whole; what the subsets show of the variance stands for it."""
    x, y = _features(1000, seed=0, shift=0.05), _features(1200, seed=1)
    draws = draw_subsets(1000, 1200, num_subsets=10, size=200, random=np.random.RandomState(0))
    calls = []
    monkeypatch.setattr(discrepancy, "_subsets_at_once", lambda *_: calls.append(1))
    found = subset_mean(x, y, draws)
    assert not calls
    whole = mean_discrepancy(x, y)
    drawn = found.values.var(ddof=1) / 10
    assert (found.mean.stderr**2 - drawn) ** 0.5 == pytest.approx(whole.stderr, rel=0.15)


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_the_mean_standard_error_is_the_spread_of_values(shift):
    """Within 7 %; the first-order variance cut at zero would make it 13 % too large where the laws are equal."""
    random = np.random.default_rng(2)
    pairs = ((random.normal(size=(60, 8)) + shift, random.normal(size=(60, 8))) for _ in range(800))
    found = [mean_discrepancy(*pair) for pair in pairs]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.mean([one.stderr for one in found]) / spread == pytest.approx(1.0, abs=0.07)


def test_a_first_order_below_zero_lowers_the_error_to_half_the_second_order_at_most():
    """Over X and Y of 10 with interaction 1 the second order is 2/90 + 2/90 + 4/100; its noise in f is 1/9 + 1/10."""

    def stderr(first):
        moments = discrepancy._Moments(
            value=0.0, first_x=first, first_y=first, xx=1.0, yy=1.0, xy=1.0, self_x=1.0, self_y=1.0, n=10, m=10
        )
        return moments.stderr(10, 10)

    second = 4.0 / 90.0 + 4.0 / 100.0
    noise = 1.0 / 9.0 + 1.0 / 10.0
    assert stderr(noise) ** 2 == pytest.approx(second, rel=1e-12)
    assert stderr(noise + 0.1) ** 2 == pytest.approx(second + 0.08, rel=1e-12)
    assert stderr(noise - 0.05) ** 2 == pytest.approx(second - 0.04, rel=1e-12)
    assert stderr(0.0) ** 2 == pytest.approx(second / 2.0, rel=1e-12)


def test_only_as_much_of_the_kernel_matrix_as_a_block_is_ever_held(monkeypatch):
    monkeypatch.setattr(discrepancy, "ROWS", 32)
    seen = []
    kernel_of = discrepancy._square_sum
    monkeypatch.setattr(discrepancy, "_square_sum", lambda block: seen.append(block.numel()) or kernel_of(block))
    mean_discrepancy(_features(300, seed=0), _features(200, seed=1))
    assert max(seen) <= 32 * 32
    assert sum(seen) < 0.6 * (300**2 + 200**2) + 300 * 200  # half of each symmetric matrix, and the diagonal blocks


def test_half_precision_is_promoted_and_mixed_types_take_the_wider():
    half, single, double = (torch.zeros(2, 2, dtype=kind) for kind in (torch.float16, torch.float32, torch.float64))
    assert [part.dtype for part in as_floats(half, single)] == [torch.float32] * 2
    assert [part.dtype for part in as_floats(single, double)] == [torch.float64] * 2
    assert [part.dtype for part in as_floats(np.zeros((2, 2), dtype=np.int64))] == [torch.float64]


def test_drawing_the_second_set_first_swaps_the_stream():
    forward = draw_subsets(9, 9, num_subsets=2, size=4, random=np.random.RandomState(0))
    backward = draw_subsets(9, 9, num_subsets=2, size=4, random=np.random.RandomState(0), y_first=True)
    for (x, y), (other_x, other_y) in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(x, other_y)
        np.testing.assert_array_equal(y, other_x)
