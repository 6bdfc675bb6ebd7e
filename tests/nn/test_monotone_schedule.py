import math

import pytest
import torch

from genbench.nn.monotone_schedule import MonotoneSchedule


def crooked(**settings: object) -> MonotoneSchedule:
    """A schedule whose sigmoids are moved, so that it is no straight line."""
    schedule = MonotoneSchedule(-10.0, 6.0, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter, size in ((schedule.a, 2.0), (schedule.b, 1.0), (schedule.c, 1.0)):
            parameter.add_(size * torch.randn_like(parameter))
        schedule.c.add_(3.0)
    return schedule


def test_gamma_rises_from_its_first_to_its_last_value() -> None:
    t = torch.linspace(0.0, 1.0, 1001)
    gamma = crooked(units=16, learned_ends=True)(t)
    assert bool((gamma.diff() > 0).all())
    assert gamma[0].item() == pytest.approx(-10.0, abs=1e-5)
    assert gamma[-1].item() == pytest.approx(6.0, abs=1e-4)
    assert (gamma - (-10.0 + 16.0 * t)).abs().max() > 0.5  # no straight line


def test_without_units_it_is_a_straight_line() -> None:
    t = torch.rand(20)
    schedule = MonotoneSchedule(-10.0, 6.0, units=0, learned_ends=False)
    torch.testing.assert_close(schedule(t), -10.0 + 16.0 * t)
    assert torch.equal(schedule.shape(t)[1], torch.ones(20))


def test_it_starts_near_a_straight_line() -> None:
    t = torch.linspace(0.0, 1.0, 101)
    apart = MonotoneSchedule(0.0, 1.0, units=64, learned_ends=True)(t) - t
    assert 0.0 < apart.abs().max().item() < 0.02


def test_the_slope_is_the_derivative() -> None:
    schedule = crooked(units=16, learned_ends=False).double()
    t = torch.rand(50, dtype=torch.float64).requires_grad_()
    share, slope = schedule.shape(t)
    (derivative,) = torch.autograd.grad(share.sum(), t)
    torch.testing.assert_close(slope, derivative)
    assert bool((slope > 0).all())


def test_gamma_still_rises_where_the_gap_has_crossed_zero() -> None:
    schedule = crooked(units=4, learned_ends=True)
    with torch.no_grad():
        schedule.gap.fill_(-3.0)
    assert bool((schedule(torch.linspace(0.0, 1.0, 101)).diff() > 0).all())


@pytest.mark.parametrize(("units", "learned_ends", "number"), [(0, False, 0), (0, True, 2), (5, True, 5)])
def test_only_what_is_learned_is_a_parameter(units: int, learned_ends: bool, number: int) -> None:
    schedule = MonotoneSchedule(-13.3, 5.0, units=units, learned_ends=learned_ends)
    assert len(list(schedule.parameters())) == number
    first, gap = schedule.ends()
    assert (first.item(), gap.item()) == (pytest.approx(-13.3), pytest.approx(18.3))


def test_every_part_gets_a_gradient() -> None:
    schedule = crooked(units=8, learned_ends=True)
    share, slope = schedule.shape(torch.rand(20))
    (schedule(torch.rand(20)).square().sum() + (share * slope).sum()).backward()
    for name, parameter in schedule.named_parameters():
        assert parameter.grad is not None, name
        assert math.isfinite(parameter.grad.sum().item()), name
        assert bool(parameter.grad.any()), name
