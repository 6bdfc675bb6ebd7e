"""Couplings of batches against enumeration, sorting and POT's exact solver."""

import itertools
import math

import numpy as np
import pytest
import torch

from genbench.prob.minibatch_transport import drawn_pairing, entropic_plan, exact_pairing, squared_distances


def points(count, *, dims=3, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dims, generator=generator, dtype=torch.float64) + shift


def mean_cost(x, y):
    return (x - y).square().flatten(1).sum(1).mean().item()


def emd2(x, y):
    import ot

    return float(ot.emd2([], [], squared_distances(x, y).numpy()))


def test_distances_are_those_of_every_pair():
    x, y = points(4), points(6, seed=1)
    by_hand = (x[:, None] - y).square().sum(2)
    torch.testing.assert_close(squared_distances(x, y), by_hand)
    torch.testing.assert_close(squared_distances(x.view(4, 1, 3), y.view(6, 3, 1)), by_hand)
    assert squared_distances(x, x).diagonal().max() < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_no_permutation_costs_less_than_the_exact_pairing(seed):
    x, y = points(6, seed=seed), points(6, seed=seed + 10, shift=1.0)
    best = min(mean_cost(x[list(order)], y) for order in itertools.permutations(range(6)))
    assert mean_cost(x[exact_pairing(x, y)], y) == pytest.approx(best, rel=1e-12)


def test_exact_pairs_use_every_row_once_and_cost_what_pot_finds():
    x, y = points(100, dims=5), points(100, dims=5, seed=1, shift=0.5)
    partners = exact_pairing(x, y)
    assert partners.sort().values.tolist() == list(range(100))
    assert mean_cost(x[partners], y) == pytest.approx(emd2(x, y), rel=1e-9)
    for seed in range(20):
        order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
        assert mean_cost(x[partners], y) < mean_cost(x[order], y)


def test_exact_pairs_of_a_line_are_sorted():
    x, y = points(50, dims=1), points(50, dims=1, seed=1)
    paired = x[exact_pairing(x, y)]
    torch.testing.assert_close(paired[y[:, 0].argsort()], x.sort(dim=0).values)


def test_a_shuffled_and_shifted_batch_finds_itself():
    x = points(40).view(40, 3, 1, 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    assert torch.equal(exact_pairing(x, x[order] + 7.0), order)


def test_exact_pairs_of_unequal_batches_are_refused():
    with pytest.raises(ValueError, match="one size, found 3 and 4"):
        exact_pairing(points(3), points(4))


@pytest.mark.parametrize("epsilon", [0.2, 0.5, 5.0])
def test_both_marginals_of_the_entropic_plan_are_uniform(epsilon):
    plan = entropic_plan(points(30), points(20, seed=1, shift=1.0), epsilon=epsilon)
    assert plan.dtype == torch.float64
    assert (plan >= 0.0).all()
    torch.testing.assert_close(plan.sum(0), torch.full((20,), 1 / 20, dtype=torch.float64), rtol=0.0, atol=2e-6)
    torch.testing.assert_close(plan.sum(1), torch.full((30,), 1 / 30, dtype=torch.float64), rtol=0.0, atol=2e-6)


def test_the_cost_of_the_entropic_plan_lies_between_the_exact_one_and_that_of_independent_pairs():
    x, y = points(30), points(30, seed=1, shift=1.0)
    cost = squared_distances(x, y)
    costs = [(entropic_plan(x, y, epsilon=epsilon) * cost).sum().item() for epsilon in (0.1, 0.3, 1.0, 100.0)]
    assert costs == sorted(costs)
    least, independent = emd2(x, y), cost.mean().item()
    assert least - 1e-5 < costs[0] < least + 0.15 * (independent - least)
    assert costs[-1] == pytest.approx(independent, rel=1e-2)


def test_the_entropic_plan_is_the_one_of_the_smallest_objective():
    """Against the other plans on the segments to the exact and to the independent plan."""
    x, y = points(12), points(12, seed=1)
    cost, epsilon = squared_distances(x, y), 0.3
    plan = entropic_plan(x, y, epsilon=epsilon)
    exact = torch.zeros_like(plan)
    exact[exact_pairing(x, y), torch.arange(12)] = 1 / 12

    weight = epsilon * (cost - cost.mean(0) - cost.mean(1, keepdim=True) + cost.mean()).std(correction=0)

    def objective(pi):
        return ((pi * cost).sum() + weight * torch.special.xlogy(pi, pi).sum()).item()

    for other in (exact, torch.full_like(plan, 1 / 144)):
        assert objective(plan) < objective(torch.lerp(plan, other, 0.1))


def test_an_epsilon_too_small_for_exponentials_still_gives_a_plan():
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    plan = entropic_plan(x, x + 0.1, epsilon=1e-3)
    torch.testing.assert_close(plan, torch.eye(2, dtype=torch.float64) / 2, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("y", [torch.ones(4, 3), points(4)])
def test_points_that_are_all_one_are_coupled_evenly(y):
    plan = entropic_plan(torch.ones(3, 3), y, epsilon=0.1)
    torch.testing.assert_close(plan, torch.full((3, 4), 1 / 12, dtype=torch.float64))


def test_plans_do_not_depend_on_where_the_batches_lie_or_on_their_unit():
    x, y = points(10), points(10, seed=1)
    plan = entropic_plan(x, y, epsilon=0.5)
    for other in (entropic_plan(x + 3.0, y, epsilon=0.5), entropic_plan(8.0 * x, 8.0 * y, epsilon=0.5)):
        torch.testing.assert_close(plan, other, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, -1.0])
def test_an_epsilon_that_is_not_above_zero_is_refused(epsilon):
    with pytest.raises(ValueError, match="above 0"):
        entropic_plan(points(3), points(3), epsilon=epsilon)


def test_pairs_are_drawn_as_often_as_the_plan_says():
    plan = torch.tensor([[0.20, 0.05, 0.25], [0.05, 0.45, 0.00]], dtype=torch.float64)
    generator, count = torch.Generator().manual_seed(0), 4000
    drawn = torch.stack([drawn_pairing(plan, generator=generator) for _ in range(count)])  # (count, 3)
    share = plan[1] / plan.sum(0)
    error = (share * (1 - share) / count).sqrt()
    assert ((drawn.double().mean(0) - share).abs() <= 4 * error).all()
    assert drawn[:, 2].max() == 0


def test_draws_use_the_given_generator_alone():
    plan = entropic_plan(points(10), points(10, seed=1), epsilon=1.0)
    before = torch.get_rng_state()
    first = drawn_pairing(plan, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, drawn_pairing(plan, generator=torch.Generator().manual_seed(0)))


def test_paired_gaussians_approach_their_distance():
    """W2^2 of N(0, I) and N(m, s^2 I) is |m|^2 + D (s - 1)^2; a finite batch is above it in the mean."""
    exact = 2 * 1.0**2 + 2 * (0.5 - 1.0) ** 2
    costs = []
    for seed in range(10):
        x, y = points(256, dims=2, seed=seed), 0.5 * points(256, dims=2, seed=seed + 50) + 1.0
        costs.append(mean_cost(x[exact_pairing(x, y)], y))
    error = np.std(costs, ddof=1) / math.sqrt(10)
    independent = 2 * 1.0**2 + 2 * (0.5**2 + 1.0)
    assert exact - 4 * error < np.mean(costs) < exact + 0.1 * (independent - exact)
