import math

import pytest
import torch
from metropolis_laws import (
    NothingIsReadBack,
    assert_moments,
    banana,
    banana_moments,
    gaussian,
    gaussian_moments,
)
from torch import nn

from genbench.samplers.hmc import hmc
from genbench.samplers.langevin import langevin
from genbench.samplers.mala import BEST_ACCEPTANCE, adaptive_mala, mala


def start(num, seed=0):
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chains(energy, *, num=4000, seed=1, **settings):
    return mala(energy, start(num), generator=torch.Generator().manual_seed(seed), **settings)


def test_chains_have_the_moments_of_a_correlated_gaussian():
    found = chains(gaussian, num_steps=300, step_size=0.08)
    assert_moments(found.x, gaussian_moments())
    assert 0.5 < found.acceptance.mean() < 0.99


def test_chains_have_the_moments_of_a_banana():
    found = chains(banana, num_steps=300, step_size=0.1)
    assert_moments(found.x, banana_moments())
    assert 0.5 < found.acceptance.mean() < 0.99


def test_a_step_that_is_biased_without_the_rule_is_not_with_it():
    # Unadjusted steps of N(0, 1) have the variance 1 / (1 - h / 2), 1.43 for h = 0.6.
    x = torch.zeros(20_000, 1, dtype=torch.float64)
    settings = {"num_steps": 60, "step_size": 0.6}

    def energy(x):
        return 0.5 * x.square().sum(1)

    adjusted = mala(energy, x, generator=torch.Generator().manual_seed(0), **settings).x
    unadjusted = langevin(energy, x, noise_scale=math.sqrt(1.2), generator=torch.Generator().manual_seed(0), **settings)
    four_errors = 4 * math.sqrt(2 / len(x))
    assert adjusted.var().item() == pytest.approx(1.0, abs=four_errors)
    assert unadjusted.var().item() == pytest.approx(1 / 0.7, rel=four_errors)


def test_acceptance_equals_its_integral():
    # In equilibrium: the mean of min(1, exp(E(x) - E(y)) q(x|y) / q(y|x)) over x ~ N(0, 1) and the noise, on a grid.
    h = 0.7
    z = torch.linspace(-7, 7, 1401, dtype=torch.float64)
    weight = torch.exp(-0.5 * z.square())
    weight = weight / weight.sum()
    x, eps = z[:, None], z[None]
    y = x - h * x + math.sqrt(2 * h) * eps
    log_ratio = 0.5 * (x.square() - y.square()) + 0.5 * eps.square() - (x - y + h * y).square() / (4 * h)
    exact = (weight[:, None] * weight * log_ratio.clamp(max=0).exp()).sum().item()
    exact_draws = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = mala(
        lambda x: 0.5 * x.square().sum(1),
        exact_draws,
        num_steps=20,
        step_size=h,
        generator=torch.Generator().manual_seed(1),
    )
    four_errors = 4 * found.acceptance.std().item() / math.sqrt(len(exact_draws))
    assert found.acceptance.mean().item() == pytest.approx(exact, abs=four_errors)
    assert 0.5 < exact < 0.99


def test_it_is_hamiltonian_dynamics_of_one_leapfrog():
    h = 0.08
    one = mala(gaussian, start(50), num_steps=20, step_size=h, generator=torch.Generator().manual_seed(3))
    other = hmc(
        gaussian,
        start(50),
        num_steps=20,
        step_size=math.sqrt(2 * h),
        leapfrog_steps=1,
        generator=torch.Generator().manual_seed(3),
    )
    torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-10)
    assert torch.equal(one.acceptance, other.acceptance)
    assert 0 < one.acceptance.mean() < 1


def test_smaller_steps_are_accepted_more_often():
    shares = [chains(banana, num=500, num_steps=50, step_size=h).acceptance.mean() for h in (1.0, 0.3, 0.1, 0.01)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.98


def test_no_chain_enters_where_the_energy_is_infinite_or_no_number():
    def energy(x):
        walls = torch.where(x[:, 0] < 0, math.nan, 0.0) + torch.where(x[:, 1] < 0, math.inf, 0.0)
        return 0.5 * x.square().sum(1) + walls

    found = mala(energy, torch.ones(500, 2), num_steps=100, step_size=0.3, generator=torch.Generator().manual_seed(0))
    assert found.x.min() >= 0
    assert 0 < found.acceptance.mean() < 1


def test_an_adapted_step_is_accepted_as_often_as_is_best():
    step, x, shares = torch.tensor(30.0, dtype=torch.float64), start(500), []
    generator = torch.Generator().manual_seed(2)
    for _ in range(60):
        found = adaptive_mala(banana, x, num_steps=2, step_size=step, generator=generator)
        x, shares = found.x, [*shares, found.acceptance.mean().item()]
    assert shares[0] < 0.1
    assert sum(shares[-20:]) / 20 == pytest.approx(BEST_ACCEPTANCE, abs=0.03)


def test_nothing_is_read_back_from_the_device():
    step = torch.tensor(0.1, dtype=torch.float64)
    with NothingIsReadBack():
        mala(banana, start(8), num_steps=3, step_size=0.1, generator=None)
        adaptive_mala(banana, start(8), num_steps=3, step_size=step, generator=None)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off_and_depends_on_the_generator_alone(mode):
    expected = chains(banana, num=8, num_steps=5, step_size=0.1)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    with mode():
        again = chains(banana, num=8, num_steps=5, step_size=0.1)
    assert torch.equal(expected.x, again.x)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(chains(banana, num=8, num_steps=5, step_size=0.1, seed=2).x, expected.x)


def test_parameters_gather_no_gradient_and_the_start_is_left_as_it_is():
    net = nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 1), nn.Flatten(0))
    x = torch.randn(3, 2)
    kept = x.clone()
    found = mala(net, x, num_steps=3, step_size=0.1, generator=None)
    assert torch.equal(x, kept)
    assert not found.x.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("settings", [{"num_steps": 0, "step_size": 0.1}, {"num_steps": 1, "step_size": 0.0}])
def test_chains_that_do_not_move_are_refused(settings):
    with pytest.raises(ValueError, match="at least 1 step"):
        mala(banana, start(2), generator=None, **settings)
    with pytest.raises(ValueError, match="at least 1 step"):
        adaptive_mala(banana, start(2), num_steps=0, step_size=torch.ones(()), generator=None)
