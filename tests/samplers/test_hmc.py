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

from genbench.samplers.hmc import hmc
from genbench.samplers.metropolis import evaluate, hamiltonian_move


def start(num, seed=0):
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chains(energy, *, num=4000, seed=1, **settings):
    return hmc(energy, start(num), generator=torch.Generator().manual_seed(seed), **settings)


@pytest.mark.parametrize(("energy", "truth"), [(gaussian, gaussian_moments), (banana, banana_moments)])
def test_chains_have_the_moments_of_the_law(energy, truth):
    found = chains(energy, num_steps=60, step_size=0.25, leapfrog_steps=5)
    assert_moments(found.x, truth())
    assert 0.7 < found.acceptance.mean() < 1


def test_the_error_of_a_trajectory_is_of_second_order_in_its_step():
    # E[1 - acceptance] of trajectories of one length falls as the cube of the step for a law in equilibrium, at least
    # as the square from anywhere: halving the step takes it down to a third or less.
    refused = [
        1 - chains(banana, num=2000, num_steps=20, step_size=0.4 / k, leapfrog_steps=2 * k).acceptance.mean().item()
        for k in (1, 2, 4)
    ]
    assert refused[0] > 3 * refused[1] > 9 * refused[2] > 0


def test_a_quarter_of_a_period_forgets_where_a_gaussian_chain_was():
    # x(t) = x cos t + p sin t: at t = pi / 2 the place is the momentum, whose draws are independent of the place.
    x = start(2000)
    steps = 50
    found = hmc(
        lambda x: 0.5 * x.square().sum(1),
        x,
        num_steps=1,
        step_size=math.pi / 2 / steps,
        leapfrog_steps=steps,
        generator=torch.Generator().manual_seed(1),
    )
    p = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = found.acceptance == 1
    assert moved.double().mean() > 0.99
    assert (found.x[moved] - p[moved]).abs().max() < 2e-3


def test_volume_is_kept_and_the_way_back_leads_home():
    x = start(1)

    def ends(x, p, *, step=0.3, steps=4):
        """The leapfrog written out."""
        for _ in range(steps):
            p = p - 0.5 * step * _slope(x)
            x = x + step * p
            p = p - 0.5 * step * _slope(x)
        return torch.cat([x, p])

    p = start(1, seed=5)
    jacobian = torch.autograd.functional.jacobian(lambda z: ends(z[:1], z[1:]), torch.cat([x, p])).reshape(4, 4)
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-10)
    there = ends(x, p)
    torch.testing.assert_close(ends(there[:1], -there[1:])[:1], x)
    # The move of the package is that leapfrog with that momentum.
    point = evaluate((banana,), x)
    generator = torch.Generator().manual_seed(5)
    moved, took = hamiltonian_move((banana,), point, (1.0,), 0.3, leapfrog_steps=4, generator=generator)
    assert took.item()
    torch.testing.assert_close(moved.x, there[:1])


def _slope(x):
    """Gradient of the banana's energy by hand."""
    across = (x[:, 1] - 0.5 * (x[:, 0].square() - 1)) / 0.25
    return torch.stack([x[:, 0] - across * x[:, 0], across], dim=1)


def test_nothing_is_read_back_from_the_device():
    with NothingIsReadBack():
        chains(banana, num=8, num_steps=2, step_size=0.1, leapfrog_steps=3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(mode):
    settings = {"num": 8, "num_steps": 3, "step_size": 0.1, "leapfrog_steps": 2}
    expected = chains(banana, **settings)
    with mode():
        assert torch.equal(chains(banana, **settings).x, expected.x)


@pytest.mark.parametrize("changed", [{"num_steps": 0}, {"leapfrog_steps": 0}, {"step_size": -1.0}])
def test_chains_that_do_not_move_are_refused(changed):
    with pytest.raises(ValueError, match="at least 1"):
        chains(banana, num=2, **{"num_steps": 1, "leapfrog_steps": 1, "step_size": 0.1} | changed)
