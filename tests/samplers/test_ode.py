"""Paths and densities against linear fields, whose flows and divergences are known."""

import math

import pytest
import torch

from genbench.samplers.ode import Solver, solve, solve_for_training, solve_with_log_density, with_divergence

A = torch.tensor([[-0.5, 1.0, 0.0], [0.2, 0.3, -0.4], [0.0, 0.7, 0.1]], dtype=torch.float64)


def _linear(t, x):
    return x @ A.T


def _x(count=5):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("end", [1.5, -0.5])
def test_a_linear_field_moves_points_by_the_matrix_exponential(end):
    found = solve(_linear, _x(), start=0.5, end=end, solver=Solver(rtol=1e-9, atol=1e-9))
    torch.testing.assert_close(found, _x() @ torch.matrix_exp(A * (end - 0.5)).T, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("rk4", 4)])
def test_errors_of_fixed_steps_shrink_with_their_order(method, order):
    exact = _x() @ torch.matrix_exp(A).T
    errors = []
    for num_steps in (8, 16):
        found = solve(_linear, _x(), start=0.0, end=1.0, solver=Solver(method=method, num_steps=num_steps))
        errors.append((found - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "rk4"])
def test_evaluations_are_counted_as_they_are_made(method):
    calls = []
    solver = Solver(method=method, num_steps=7)
    solve(lambda t, x: calls.append(1) or -x, _x(), start=0.0, end=1.0, solver=solver)
    assert len(calls) == solver.evaluations
    assert Solver().evaluations is None


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_log_density_gains_minus_the_trace(divergence):
    diagonal = torch.tensor([0.3, -0.8, 0.1], dtype=torch.float64)  # signs give the trace of a diagonal without error
    solver, generator = Solver(rtol=1e-9, atol=1e-9), torch.Generator().manual_seed(1)
    found, gain = solve_with_log_density(
        lambda t, x: x * diagonal, _x(), start=0.0, end=2.0, solver=solver, divergence=divergence, generator=generator
    )
    torch.testing.assert_close(found, _x() * (2.0 * diagonal).exp(), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(gain, torch.full((5,), 0.8, dtype=torch.float64), rtol=1e-7, atol=1e-8)


def test_a_gaussian_carried_to_another_keeps_its_exact_density():
    """x_t = (1 + t) x_0 has v = x / (1 + t): from N(0, 1) at t = 0 to N(0, 4) at t = 1."""
    x = _x() * 2.0
    z, gain = solve_with_log_density(
        lambda t, x: x / (1.0 + t), x, start=1.0, end=0.0, solver=Solver(rtol=1e-9, atol=1e-9), divergence="exact"
    )
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    expected = torch.distributions.Normal(0.0, 2.0).log_prob(x).sum(1)
    torch.testing.assert_close(base - gain, expected, rtol=1e-7, atol=1e-7)


def test_hutchinson_is_the_trace_in_the_mean_and_exact_is_the_trace():
    t, x = torch.zeros(()), _x(1)
    _, exact = with_divergence(_linear, t, x, None)
    torch.testing.assert_close(exact, A.trace().expand(1))
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    _, found = with_divergence(_linear, t, x.expand(8, 3), every)
    torch.testing.assert_close(found.mean(), A.trace())
    assert found.std() > 0.1


def test_parameters_gather_no_gradient_and_none_is_needed():
    layer = torch.nn.Linear(3, 3, dtype=torch.float64)
    with torch.no_grad():
        _, gain = solve_with_log_density(
            lambda t, x: layer(x).tanh(),
            _x(),
            start=0.0,
            end=1.0,
            solver=Solver(method="rk4", num_steps=4),
            divergence="exact",
        )
    assert not gain.requires_grad
    assert all(p.grad is None for p in layer.parameters())


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"rtol": 0.0}, {"atol": -1.0}])
def test_a_solver_without_steps_or_tolerance_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one step and positive tolerances"):
        Solver(**wrong)


@pytest.mark.parametrize("end", [1.0, 0.0])
def test_no_solver_asks_beyond_the_ends(end):
    for method in ("euler", "midpoint", "heun2", "rk4", "dopri5"):
        asked = []
        solve(
            lambda t, x, asked=asked: (asked.append(float(t)), torch.sin(5.0 * x) * (1.0 + t))[1],
            _x(),
            start=1.0 - end,
            end=end,
            solver=Solver(method=method, num_steps=9),
        )
        assert -1e-12 <= min(asked) <= max(asked) <= 1.0 + 1e-12, method


@pytest.mark.parametrize("num_steps", [61, 109, 115, 122])
def test_single_precision_takes_no_step_too_many(num_steps):
    solver, calls = Solver(method="heun2", num_steps=num_steps), []
    solve(lambda t, x: calls.append(1) or -x, _x().float(), start=0.0, end=1.0, solver=solver)
    assert len(calls) == solver.evaluations


class _Linear(torch.nn.Module):
    """v = W x, W away from symmetric."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(A.clone())

    def forward(self, t, x):
        return x @ self.weight.T


def _trained(field, x, *, divergence="exact", **how):
    generator = torch.Generator().manual_seed(1)
    return solve_for_training(
        field,
        x,
        start=1.0,
        end=0.0,
        solver=Solver(**how),
        divergence=divergence,
        parameters=field.parameters(),
        generator=generator,
    )


TIGHT = {"rtol": 1e-9, "atol": 1e-9}
EVEN = {"method": "rk4", "num_steps": 40}


@pytest.mark.parametrize("how", [TIGHT, EVEN])
def test_a_solve_for_training_knows_ends_gains_and_costs_of_a_linear_field(how):
    x, found = _x(), _trained(_Linear(), _x(), **how)
    torch.testing.assert_close(found.end, x @ torch.matrix_exp(-A).T, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.gain, A.trace().expand(5), rtol=1e-6, atol=1e-7)  # backwards in time
    torch.testing.assert_close(found.jacobian, A.square().sum().expand(5), rtol=1e-6, atol=1e-7)
    times = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    paths = torch.stack([x @ torch.matrix_exp(-A * t).T for t in times])
    kinetic = (paths @ A.T).square().sum(2).mean(0)
    torch.testing.assert_close(found.kinetic, kinetic, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_the_adjoint_equation_has_the_gradients_of_the_steps_themselves(divergence):
    gradients = []
    for how in (TIGHT, EVEN):
        field, x = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Softplus(), torch.nn.Linear(8, 3)).double(), _x()
        torch.manual_seed(0)
        for parameter in field.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        x.requires_grad_()
        timed = torch.nn.ModuleDict({"net": field})
        timed.forward = lambda t, x, field=field: (1.0 + t) * field(x)
        found = _trained(timed, x, divergence=divergence, **how)
        value = (found.end.sin().sum(1) + found.gain + 0.3 * found.kinetic + 0.2 * found.jacobian).sum()
        gradients.append(torch.autograd.grad(value, [x, *field.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_solve_for_training_agrees_with_the_solve_that_only_reads():
    field, generator = _Linear(), torch.Generator().manual_seed(1)
    found = _trained(field, _x(), divergence="hutchinson", **EVEN)
    end, gain = solve_with_log_density(
        field, _x(), start=1.0, end=0.0, solver=Solver(**EVEN), divergence="hutchinson", generator=generator
    )
    torch.testing.assert_close(found.end, end)
    torch.testing.assert_close(found.gain, gain)
    with torch.no_grad():
        assert not any(part.requires_grad for part in _trained(field, _x(), **EVEN))
        assert not any(part.requires_grad for part in _trained(field, _x(), **TIGHT))
