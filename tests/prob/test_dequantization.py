import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.prob.dequantization import (
    bin_centres,
    dequantise,
    dequantise_signed,
    from_logits,
    integer_log_likelihood,
    quantise,
    to_logits,
)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_noise_at_either_end_of_its_range_stays_in_the_pixel_s_own_bin(monkeypatch, levels):
    x = torch.arange(levels, dtype=torch.uint8).view(-1, 1)
    for noise in (0.0, math.nextafter(1.0, 0.0)):
        monkeypatch.setattr(torch, "rand", lambda shape, noise=noise, **_: torch.full(shape, noise))
        y = dequantise(x, levels)
        assert y.min() > 0
        assert y.max() < 1
        assert torch.equal(quantise(y, levels), x)


@given(levels=st.integers(2, 256), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_dequantised_integers_come_back_whatever_the_number_of_levels(levels, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, levels, (64,), generator=generator, dtype=torch.uint8)
    assert torch.equal(quantise(dequantise(x, levels, generator=generator), levels), x)
    assert torch.equal(quantise(bin_centres(x, levels), levels), x)


def test_dequantisation_fills_each_bin_evenly():
    generator = torch.Generator().manual_seed(0)
    y = dequantise(torch.full((40_000,), 3, dtype=torch.uint8), 8, generator=generator)
    counts = torch.histc((y * 8 - 3).float(), bins=10, min=0, max=1)
    assert (counts - 4000).abs().max() < 5 * math.sqrt(4000 * 0.9)  # five standard deviations of a bin


def test_points_outside_the_cube_go_to_the_end_bins():
    assert quantise(torch.tensor([-0.3, 1.0, 1.7]), 17).tolist() == [0, 16, 16]


def test_uniform_density_costs_exactly_the_logarithm_of_the_levels():
    for levels in (2, 17, 256):
        nats = integer_log_likelihood(torch.zeros(5, dtype=torch.float64), 12, levels)
        bits_per_dim = -nats / (12 * math.log(2))
        torch.testing.assert_close(bits_per_dim, torch.full((5,), math.log2(levels), dtype=torch.float64))


def test_histogram_density_costs_the_entropy_of_the_integers():
    pmf = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    log_density = (pmf * 4).log()  # height of the histogram over bins of width 1/4
    entropy = -(pmf * pmf.log()).sum()
    torch.testing.assert_close(-(pmf * integer_log_likelihood(log_density, 1, 4)).sum(), entropy)


def test_bound_of_a_sloped_density_stays_below_the_probability_of_the_integer():
    levels = 4
    k = torch.arange(levels, dtype=torch.float64)
    probability = ((k + 1) ** 2 - k**2) / levels**2  # of the bins, under the density 2y on [0, 1]
    y = (k[:, None] + (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000) / levels
    bound = integer_log_likelihood((2 * y).log(), 1, levels).mean(1)
    assert (bound < probability.log()).all()
    closed_form = torch.tensor([_mean_log(k, levels) for k in range(levels)], dtype=torch.float64) - math.log(levels)
    torch.testing.assert_close(bound, closed_form, atol=1e-4, rtol=0)


def _mean_log(k: int, levels: int) -> float:
    """Mean of log(2y) over bin k: the antiderivative of log(2y) is y log(2y) - y."""
    ends = [y * math.log(2 * y) - y if y > 0 else 0.0 for y in (k / levels, (k + 1) / levels)]
    return levels * (ends[1] - ends[0])


def test_logits_invert_and_their_log_slope_is_the_derivative():
    y = torch.linspace(0, 1, 33, dtype=torch.float64).view(-1, 1).requires_grad_()
    h, log_det = to_logits(y, 0.05)
    (slope,) = torch.autograd.grad(h.sum(), y)
    torch.testing.assert_close(log_det, slope.log().flatten(), atol=1e-12, rtol=0)
    torch.testing.assert_close(from_logits(h, 0.05), y, atol=1e-12, rtol=0)


def test_log_slope_sums_over_an_example_and_never_over_the_batch():
    y = torch.rand(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, log_det = to_logits(y, 0.05)
    one_by_one = torch.stack([to_logits(row[None], 0.05)[1][0] for row in y])
    assert log_det.shape == (3,)
    torch.testing.assert_close(log_det, one_by_one)


def test_equal_generators_give_equal_noise_and_leave_the_global_stream_alone():
    x = torch.zeros(100, dtype=torch.uint8)
    before = torch.get_rng_state()
    first, second = (dequantise(x, 256, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_signed_noise_lies_in_bins_around_the_places_of_the_levels(levels):
    x = torch.arange(levels, dtype=torch.uint8).repeat(200, 1)
    y = dequantise_signed(x, levels, generator=torch.Generator().manual_seed(0))
    off = y - (2.0 * x.float() / (levels - 1) - 1.0)
    half = 1.0 / (levels - 1)
    assert off.abs().max() <= half * (1 + 1e-4)
    assert off.std().item() == pytest.approx(half / math.sqrt(3.0), rel=0.05)
