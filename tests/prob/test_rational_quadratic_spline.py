"""The spline against its knots, its tails, autograd, and a reference that walks through bins one number at a time."""

import math

import pytest
import torch
from torch import Tensor

from genbench.prob.rational_quadratic_spline import (
    MIN_BIN,
    MIN_SLOPE,
    inverse_spline,
    knots_of,
    num_parameters,
    spline,
)

BOUND = 3.0


def raw_of(num_bins: int, *shape: int, scale: float = 1.5, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(num_bins)
    drawn = torch.randn(shape[0], num_parameters(num_bins), *shape[1:], generator=generator, dtype=torch.float64)
    return (scale * drawn).to(dtype)


def points(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (2.0 * torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)).to(dtype)


def reference(x: float, raw: list[float], num_bins: int) -> tuple[float, float]:
    """Image and log-slope of one number, straight from the definition."""
    if abs(x) > BOUND:
        return x, 0.0

    def knots(values: list[float]) -> list[float]:
        total = sum(math.exp(v) for v in values)
        found = [-BOUND]
        for v in values:
            share = MIN_BIN + (1.0 - num_bins * MIN_BIN) * math.exp(v) / total
            found.append(found[-1] + 2.0 * BOUND * share)
        return [*found[:-1], BOUND]

    xs, ys = knots(raw[:num_bins]), knots(raw[num_bins : 2 * num_bins])
    shift = math.log(math.exp(1.0 - MIN_SLOPE) - 1.0)
    slopes = [1.0, *(MIN_SLOPE + math.log1p(math.exp(v + shift)) for v in raw[2 * num_bins :]), 1.0]
    k = max(j for j in range(num_bins) if xs[j] <= x)
    dx, dy, d0, d1 = xs[k + 1] - xs[k], ys[k + 1] - ys[k], slopes[k], slopes[k + 1]
    s, xi = dy / dx, (x - xs[k]) / dx
    below = s + (d1 + d0 - 2.0 * s) * xi * (1.0 - xi)
    y = ys[k] + dy * (s * xi**2 + d0 * xi * (1.0 - xi)) / below
    slope = s**2 * (d1 * xi**2 + 2.0 * s * xi * (1.0 - xi) + d0 * (1.0 - xi) ** 2) / below**2
    return y, math.log(slope)


@pytest.mark.parametrize("num_bins", [1, 2, 5, 8])
def test_images_and_slopes_are_those_of_the_definition(num_bins):
    raw, x = raw_of(num_bins, 40), points(40)
    y, log_slope = spline(x, raw, bound=BOUND)
    for i in range(40):
        expected = reference(x[i].item(), raw[i].tolist(), num_bins)
        assert (y[i].item(), log_slope[i].item()) == pytest.approx(expected, abs=1e-12)


def test_knots_are_mapped_to_knots_with_their_slopes():
    raw = raw_of(6, 5, 3)
    knots = knots_of(raw, bound=BOUND)
    for k in range(7):
        y, log_slope = spline(knots.x[:, k], raw, bound=BOUND)
        torch.testing.assert_close(y, knots.y[:, k], rtol=0, atol=1e-12)
        torch.testing.assert_close(log_slope, knots.slope[:, k].log(), rtol=0, atol=1e-12)
        torch.testing.assert_close(inverse_spline(knots.y[:, k], raw, bound=BOUND), knots.x[:, k], rtol=0, atol=1e-12)
    assert torch.equal(knots.x[:, -1], torch.full((5, 3), BOUND, dtype=torch.float64))
    assert torch.equal(knots.y[:, 0], torch.full((5, 3), -BOUND, dtype=torch.float64))


def test_outside_the_bound_it_is_the_identity():
    x = torch.tensor([-1e6, -3.0001, 3.0001, 40.0], dtype=torch.float64)
    y, log_slope = spline(x, raw_of(5, 4), bound=BOUND)
    assert torch.equal(y, x)
    assert torch.equal(log_slope, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(inverse_spline(x, raw_of(5, 4), bound=BOUND), x)


def test_image_and_slope_pass_the_bound_without_a_jump():
    raw = raw_of(5, 1).expand(4, -1)
    x = torch.tensor([-3.0 - 1e-9, -3.0 + 1e-9, 3.0 - 1e-9, 3.0 + 1e-9], dtype=torch.float64)
    y, log_slope = spline(x, raw, bound=BOUND)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-7)
    torch.testing.assert_close(log_slope, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 3.0, 8.0])
def test_it_rises_everywhere(scale):
    raw = raw_of(8, 20, scale=scale)[:, :, None].expand(-1, -1, 2001)
    x = torch.linspace(-3.5, 3.5, 2001, dtype=torch.float64).expand(20, -1)
    y, log_slope = spline(x, raw, bound=BOUND)
    assert (y.diff(dim=1) > 0).all()
    assert log_slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_of_zero_make_the_identity(dtype):
    x = points(50, dtype=dtype)
    y, log_slope = spline(x, torch.zeros(50, num_parameters(8), dtype=dtype), bound=BOUND)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(y, x, rtol=0, atol=tolerance)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("shape", [(60,), (9, 4), (5, 3, 2, 2)])
def test_the_inverse_undoes_it_whatever_the_shape(dtype, tolerance, shape):
    raw, x = raw_of(8, *shape, dtype=dtype, scale=0.7), points(*shape, dtype=dtype)
    y, _ = spline(x, raw, bound=BOUND)
    torch.testing.assert_close(inverse_spline(y, raw, bound=BOUND), x, rtol=0, atol=tolerance)
    back, _ = spline(inverse_spline(x, raw, bound=BOUND), raw, bound=BOUND)
    torch.testing.assert_close(back, x, rtol=0, atol=tolerance)


def test_the_steep_end_of_a_flat_bin_is_inverted_without_cancellation():
    """There the root formula of the textbooks subtracts what is nearly equal, and is off by a hundredth."""
    raw = torch.zeros(50, num_parameters(2))
    raw[:, 2], raw[:, 3], raw[:, 4] = (
        -6.0,
        6.0,
        40.0,
    )  # a height of 0.006 over a width of 3, and a slope of 40 at its end
    x = torch.linspace(-0.05, -1e-4, 50)
    y, _ = spline(x, raw, bound=BOUND)
    back, _ = spline(inverse_spline(y, raw, bound=BOUND), raw, bound=BOUND)
    torch.testing.assert_close(back, y, rtol=0, atol=1e-4)


def test_log_slope_is_the_derivative_and_gradients_are_right():
    raw, x = raw_of(5, 12).requires_grad_(), points(12).requires_grad_()
    y, log_slope = spline(x, raw, bound=BOUND)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(lambda a, b: spline(a, b, bound=BOUND), (x, raw))
    assert torch.autograd.gradcheck(lambda a, b: inverse_spline(a, b, bound=BOUND), (x, raw))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 3001])
def test_a_wrong_number_of_parameters_is_refused(count):
    with pytest.raises(ValueError, match="3K-1 parameters"):
        spline(torch.zeros(2), torch.zeros(2, count), bound=BOUND)
