"""Entropic transport against POT, the Gaussian closed form, and finite differences."""

import itertools
import math

import numpy as np
import ot
import pytest
import torch

from genbench.metrics.sinkhorn_divergence import sinkhorn_divergence as by_pot
from genbench.prob.sinkhorn import (
    LARGEST_SCALING,
    TOLERANCE,
    _beyond,
    entropic_cost,
    own_entropic_cost,
    own_potential,
    plan_of,
    potentials,
    sinkhorn_divergence,
    squared_costs,
)


def points(num, *, dims=3, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, dims, generator=generator, dtype=torch.float64) + shift


def gaussian_on_a_grid(mean, std):
    """Places (M, 1) and log-masses (M,) of N(mean, std^2), exact to rounding for smooth functions."""
    x = mean + std * torch.linspace(-7, 7, 281, dtype=torch.float64)
    log_mass = -0.5 * ((x - mean) / std).square()
    return x[:, None], log_mass - torch.logsumexp(log_mass, 0)


def gaussian_cost(m1, s1, m2, s2, epsilon):
    """Janati et al. 2020 (arXiv:2006.02572), Theorem 1 in one dimension, with eps = 2 sigma^2."""
    half = epsilon / 2
    root = math.sqrt(4 * s1**2 * s2**2 + half**2)
    entropy = half * (1 - math.log(2 * half)) + half * math.log(root + half)
    return (m1 - m2) ** 2 + s1**2 + s2**2 - root + entropy


def gaussian_divergence(m1, s1, m2, s2, epsilon):
    own = [gaussian_cost(m, s, m, s, epsilon) for m, s in ((m1, s1), (m2, s2))]
    return gaussian_cost(m1, s1, m2, s2, epsilon) - sum(own) / 2


@pytest.mark.parametrize(
    ("sizes", "epsilon"), [((13, 30), 0.1), ((13, 30), 1.0), ((20, 20), 1.0), ((13, 30), 20.0), ((20, 20), 20.0)]
)
def test_plans_have_their_marginals_and_are_those_of_pot(sizes, epsilon):
    cost = squared_costs(points(sizes[0]), points(sizes[1], seed=1, shift=0.5))
    found = potentials(cost, epsilon=epsilon, tolerance=1e-10, max_steps=20_000)
    plan = plan_of(found, cost, epsilon=epsilon)
    assert found.off < 1e-10
    torch.testing.assert_close(plan.sum(0), torch.full((sizes[1],), 1 / sizes[1], dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), torch.full((sizes[0],), 1 / sizes[0], dtype=torch.float64))
    rows, columns = (np.full(size, 1 / size) for size in sizes)
    other = ot.sinkhorn(rows, columns, cost.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-12, numItermax=20_000)
    np.testing.assert_allclose(plan.numpy(), other, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_before_they_settle_one_marginal_is_exact_and_the_error_of_the_other_is_told(steps):
    cost = squared_costs(points(20), points(20, seed=1, shift=0.5))
    found = potentials(cost, epsilon=0.3, max_steps=steps, tolerance=0.0)
    plan = plan_of(found, cost, epsilon=0.3)
    torch.testing.assert_close(plan.sum(0), torch.full((20,), 0.05, dtype=torch.float64))
    off = (20 * plan.sum(1)).log().abs().max()
    assert 1e-6 < off <= found.off  # a step of one side brings the other nearer


def test_no_step_beyond_its_aim_lowers_the_dual_value_and_none_leaves_the_bounds():
    u = torch.linspace(-2 * LARGEST_SCALING, 2 * LARGEST_SCALING, 24_001, dtype=torch.float64)
    aim = torch.linspace(-LARGEST_SCALING, LARGEST_SCALING, 7, dtype=torch.float64)[:, None]
    before = (aim + u).clamp(-LARGEST_SCALING, LARGEST_SCALING)
    after = _beyond(before, aim.expand_as(before))
    assert after.abs().max() <= LARGEST_SCALING
    # Against the values at the aim, scaled by them where they are huge.
    rise = ((after - aim) - (after - aim).exp()) - ((before - aim) - (before - aim).exp())
    moved = (before - aim).abs() > 1e-3
    assert rise[moved].min() > 0
    outside = _beyond(torch.zeros(2), torch.tensor([math.inf, -math.inf]))  # rows where all of the plan rounds to 0
    assert outside.tolist() == [LARGEST_SCALING, -LARGEST_SCALING]


def test_clusters_settle_in_steps_that_leave_plain_alternation_far_off():
    angle = torch.arange(8) * (math.pi / 4)
    modes = torch.stack([angle.cos(), angle.sin()], 1).repeat(32, 1)
    x, y = (modes + 0.05 * points(256, dims=2, seed=seed).float() for seed in (0, 1))
    y[:20] -= modes[:20] - modes[0]  # some of each mode go to one
    cost = squared_costs(x, y)
    epsilon = 0.01 * cost.mean().item()
    found = potentials(cost, epsilon=epsilon, max_steps=200)
    assert found.off < TOLERANCE
    even = np.full(256, 1 / 256)
    alternated = ot.sinkhorn(
        even, even, cost.double().numpy(), epsilon, method="sinkhorn_log", numItermax=200, warn=False
    )
    assert np.abs(256 * alternated.sum(0) - 1).max() > 100 * TOLERANCE
    plan = plan_of(found, cost, epsilon=epsilon)
    assert (256 * plan.sum(1) - 1).abs().max() < 2 * TOLERANCE


@pytest.mark.parametrize("epsilon", [1e-2, 1e-5])
def test_plans_that_round_to_nothing_in_single_precision_are_solved_none_the_less(epsilon):
    x, y = points(6).float(), points(6, seed=1, shift=3.0).float()
    cost = squared_costs(x, y)
    found = potentials(cost, epsilon=epsilon, max_steps=60)
    assert found.f.isfinite().all()
    assert found.g.isfinite().all()
    best = min(sum(cost[i, j].item() for i, j in enumerate(order)) for order in itertools.permutations(range(6))) / 6
    assert (found.f.mean() + found.g.mean()).item() == pytest.approx(best, rel=2e-2)
    own = own_potential(squared_costs(x, x), epsilon=epsilon, max_steps=60)
    assert own.f.isfinite().all()


def test_masses_may_differ():
    a, b = (torch.rand(size, dtype=torch.float64) for size in (8, 11))
    log_a, log_b = (a / a.sum()).log(), (b / b.sum()).log()
    cost = squared_costs(points(8), points(11, seed=1))
    found = potentials(cost, epsilon=0.5, log_a=log_a, log_b=log_b, tolerance=1e-10)
    plan = plan_of(found, cost, epsilon=0.5, log_a=log_a, log_b=log_b)
    torch.testing.assert_close(plan.sum(1), log_a.exp())
    torch.testing.assert_close(plan.sum(0), log_b.exp())
    value = entropic_cost(cost, epsilon=0.5, log_a=log_a, log_b=log_b)
    primal = (plan * cost).sum() + 0.5 * (plan * (plan / (log_a.exp()[:, None] * log_b.exp())).log()).sum()
    assert value.item() == pytest.approx(primal.item(), rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.3, 3.0])
def test_the_divergence_is_that_of_the_metric_which_pot_solves(epsilon):
    x, y = points(60), points(70, seed=1, shift=0.4)
    found = sinkhorn_divergence(x, y, epsilon=epsilon)
    assert found.item() == pytest.approx(by_pot(x.numpy(), y.numpy(), epsilon=epsilon).value, rel=1e-3)


@pytest.mark.parametrize("epsilon", [10.0, 1.0, 0.3, 0.1])
def test_the_divergence_of_gaussians_is_their_closed_form(epsilon):
    first, second = (0.0, 1.0), (1.5, 0.4)
    (x, log_a), (y, log_b) = (gaussian_on_a_grid(*law) for law in (first, second))
    found = sinkhorn_divergence(x, y, epsilon=epsilon, log_a=log_a, log_b=log_b, max_steps=5000)
    assert found.item() == pytest.approx(gaussian_divergence(*first, *second, epsilon), rel=1e-4)


def test_the_divergence_of_gaussians_falls_to_the_squared_wasserstein_distance_with_epsilon():
    first, second = (0.0, 1.0), (1.5, 0.4)
    (x, log_a), (y, log_b) = (gaussian_on_a_grid(*law) for law in (first, second))
    exact = 1.5**2 + 0.6**2
    off = [
        abs(sinkhorn_divergence(x, y, epsilon=e, log_a=log_a, log_b=log_b, max_steps=5000).item() - exact)
        for e in (1.0, 0.3, 0.1)
    ]
    assert off[0] > 2 * off[1] > 4 * off[2]
    assert off[2] < 0.01


def test_without_the_correction_the_cost_of_gaussians_is_its_closed_form_too():
    (x, log_a), (y, log_b) = gaussian_on_a_grid(0.0, 1.0), gaussian_on_a_grid(1.5, 0.4)
    found = entropic_cost(squared_costs(x, y), epsilon=0.5, log_a=log_a, log_b=log_b)
    assert found.item() == pytest.approx(gaussian_cost(0.0, 1.0, 1.5, 0.4, 0.5), rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 50.0])
def test_a_cloud_is_at_no_distance_from_itself_and_a_shift_costs_its_square(epsilon):
    x, shift = points(30), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    assert abs(sinkhorn_divergence(x, x, epsilon=epsilon).item()) < 1e-4 * epsilon + 1e-9
    moved = sinkhorn_divergence(x + shift, x, epsilon=epsilon)
    assert moved.item() == pytest.approx(shift.square().sum().item(), abs=1e-3 * epsilon)


def test_a_large_epsilon_leaves_the_distance_of_the_means():
    x, y = points(30), points(40, seed=1, shift=0.7)
    found = sinkhorn_divergence(x, y, epsilon=1e5)
    assert found.item() == pytest.approx((x.mean(0) - y.mean(0)).square().sum().item(), rel=1e-3)


def test_a_small_epsilon_gives_the_cost_of_the_assignment():
    x, y = points(15), points(15, seed=1)
    exact = ot.emd2([], [], squared_costs(x, y).numpy())
    assert entropic_cost(squared_costs(x, y), epsilon=1e-3, max_steps=20_000).item() == pytest.approx(exact, rel=1e-2)


def finite_differences(function, x, *, step=1e-5):
    flat = x.flatten()
    slopes = []
    for k in range(len(flat)):
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[k] += sign * step
            ends.append(function(moved.view_as(x)).item())
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(slopes, dtype=x.dtype).view_as(x)


@pytest.mark.parametrize("epsilon", [0.3, 3.0])
def test_the_gradient_is_that_of_finite_differences(epsilon):
    x, y = points(5, dims=2).requires_grad_(), points(6, dims=2, seed=1, shift=0.5)

    def divergence(x):
        return _settled_divergence(x, y, epsilon)

    (slope,) = torch.autograd.grad(sinkhorn_divergence(x, y, epsilon=epsilon), x)
    torch.testing.assert_close(slope, finite_differences(divergence, x.detach()), rtol=2e-3, atol=2e-4)


def _settled_divergence(x, y, epsilon):
    """From potentials iterated far beyond the package's tolerance."""

    def cost_of(a, b):
        cost = squared_costs(a, b)
        found = potentials(cost, epsilon=epsilon, tolerance=1e-13, max_steps=20_000)
        return found.f.mean() + found.g.mean()

    return cost_of(x, y) - 0.5 * (cost_of(x, x) + cost_of(y, y))


def test_the_gradient_of_the_cost_is_the_plan_and_none_passes_through_the_iterations():
    cost = squared_costs(points(6), points(7, seed=1)).requires_grad_()
    (slope,) = torch.autograd.grad(entropic_cost(cost, epsilon=0.5), cost)
    found = potentials(cost, epsilon=0.5)
    torch.testing.assert_close(slope, plan_of(found, cost, epsilon=0.5))
    assert not found.f.requires_grad


@pytest.mark.slow
def test_descending_the_divergence_brings_a_cloud_to_the_other():
    x, y = points(40, dims=2), points(40, dims=2, seed=1, shift=3.0)
    first = sinkhorn_divergence(x, y, epsilon=0.1).item()
    for _ in range(30):
        x.requires_grad_()
        (slope,) = torch.autograd.grad(sinkhorn_divergence(x, y, epsilon=0.1), x)
        x = (x - 0.3 * len(x) * slope).detach()
    assert sinkhorn_divergence(x, y, epsilon=0.1).item() < 1e-2 * first


def test_the_own_potential_is_that_of_two_equal_clouds():
    cost = squared_costs(points(12), points(12))
    own = own_potential(cost, epsilon=0.5, tolerance=1e-11)
    torch.testing.assert_close(own.f, own.g)
    both = potentials(cost, epsilon=0.5, tolerance=1e-11, max_steps=20_000)
    torch.testing.assert_close(own_entropic_cost(cost, epsilon=0.5), both.f.mean() + both.g.mean(), rtol=1e-4, atol=0)


def test_single_precision_and_pictures_serve_as_well():
    x, y = points(20, dims=12), points(25, dims=12, seed=1, shift=0.5)
    exact = sinkhorn_divergence(x, y, epsilon=2.0).item()
    pictures = sinkhorn_divergence(x.float().view(20, 3, 2, 2), y.float().view(25, 3, 2, 2), epsilon=torch.tensor(2.0))
    assert pictures.dtype == torch.float32
    assert pictures.item() == pytest.approx(exact, rel=1e-3)


def test_distances_far_from_the_origin_keep_their_digits():
    x, y = points(5).float(), points(5, seed=1).float()
    torch.testing.assert_close(squared_costs(x + 1000, y + 1000), squared_costs(x, y), rtol=1e-3, atol=1e-3)
