import math

import pytest
import torch

from genbench.prob.log_mean import log_mean_exp


def lognormal(num, *, sigma, seed=0):
    """Log-weights whose mean weight is exp(sigma^2 / 2)."""
    return sigma * torch.randn(num, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_weights_have_their_own_logarithm_and_no_error():
    found = log_mean_exp(torch.full((5,), -3.0))
    assert [found.value.item(), found.low.item(), found.high.item()] == pytest.approx([-3.0] * 3)
    assert found.effective.item() == pytest.approx(5.0)


def test_one_weight_among_many_counts_as_one():
    found = log_mean_exp(torch.tensor([500.0, 0.0, 0.0, 0.0]))
    assert found.value.item() == pytest.approx(500 - math.log(4))
    assert found.effective.item() == pytest.approx(1.0)


def test_weights_beyond_the_range_of_floats_are_no_matter():
    found, shifted = (log_mean_exp(lognormal(100, sigma=1.0) + c) for c in (0.0, -5000.0))
    torch.testing.assert_close(shifted.value, found.value - 5000.0)
    torch.testing.assert_close(shifted.high - shifted.low, found.high - found.low)


def test_intervals_cover_the_log_mean_and_the_value_is_too_low_by_half_the_squared_error():
    sigma, num = 0.5, 50
    found = [log_mean_exp(lognormal(num, sigma=sigma, seed=seed)) for seed in range(2000)]
    truth = sigma**2 / 2
    inside = sum(bool(f.low < truth < f.high) for f in found) / len(found)
    assert 0.9 < inside < 0.97
    values = torch.stack([f.value for f in found])
    bias = -math.expm1(sigma**2) / (2 * num)  # the delta method's second term
    assert values.mean().item() - truth == pytest.approx(bias, abs=4 * values.std().item() / math.sqrt(len(found)))


def test_a_constant_factor_moves_value_and_interval():
    found = log_mean_exp(lognormal(20, sigma=1.0))
    moved = found.shifted(torch.tensor(2.0))
    assert [(b - a).item() for a, b in zip(found[:3], moved[:3], strict=True)] == pytest.approx([2.0] * 3)
    assert moved.effective == found.effective


@pytest.mark.parametrize("weights", [torch.zeros(1), torch.zeros(2, 2)])
def test_what_has_no_spread_is_refused(weights):
    with pytest.raises(ValueError, match="at least 2 weights"):
        log_mean_exp(weights)
