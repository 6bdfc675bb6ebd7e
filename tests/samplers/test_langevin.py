import math

import pytest
import torch
from torch import nn

from genbench.samplers.langevin import langevin


def gaussian_energy(x):
    """Energy of N(2, 0.5^2) in each dimension."""
    return ((x - 2) ** 2 / (2 * 0.25)).flatten(1).sum(1)


def draws(*, step_size, num_steps, num_chains=20_000, noise_scale=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(num_chains, 2, generator=generator, dtype=torch.float64)
    noise_scale = math.sqrt(2 * step_size) if noise_scale is None else noise_scale
    return langevin(
        gaussian_energy, start, num_steps=num_steps, step_size=step_size, noise_scale=noise_scale, generator=generator
    )


@pytest.mark.parametrize("step_size", [0.2, 0.05])
def test_stationary_moments_of_a_gaussian_follow_the_closed_form_of_the_unadjusted_scheme(step_size):
    # x' - 2 = (1 - a)(x - 2) + b eps with a = step / s^2, b^2 = 2 step: variance b^2 / (1 - (1 - a)^2).
    x = draws(step_size=step_size, num_steps=60)
    variance = 0.25 / (1 - step_size / (2 * 0.25))
    four_errors = 4 * math.sqrt(2 / x.numel())
    assert x.var().item() == pytest.approx(variance, rel=four_errors)
    assert x.mean().item() == pytest.approx(2.0, abs=4 * math.sqrt(variance / x.numel()))


def test_bias_of_the_variance_shrinks_with_the_step_size():
    biases = [draws(step_size=h, num_steps=n).var().item() - 0.25 for h, n in ((0.3, 30), (0.1, 60), (0.02, 200))]
    assert biases[0] > 2 * biases[1] > 4 * biases[2]
    assert abs(biases[2]) < 0.02


def test_less_noise_samples_at_the_temperature_the_docstring_names():
    step_size, noise_scale = 0.01, 0.05
    temperature = noise_scale**2 / (2 * step_size)
    x = draws(step_size=step_size, num_steps=300, num_chains=4000, noise_scale=noise_scale)
    discretised = temperature * 0.25 / (1 - step_size / (2 * 0.25))
    assert x.var().item() == pytest.approx(discretised, rel=4 * math.sqrt(2 / x.numel()))


def test_a_quartic_energy_keeps_the_known_bias_of_the_unadjusted_scheme():
    # Independent check: moments of exp(-x^4 / 4 + x^2 / 2) by quadrature; the bias of this step is a few per cent.
    grid = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    density = torch.exp(-(grid**4) / 4 + grid**2 / 2)
    exact = (torch.trapezoid(density * grid**2, grid) / torch.trapezoid(density, grid)).item()
    x = langevin(
        lambda x: (x**4 / 4 - x**2 / 2).squeeze(1),
        torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        num_steps=400,
        step_size=0.01,
        noise_scale=math.sqrt(0.02),
        generator=torch.Generator().manual_seed(0),
    )
    assert x.square().mean().item() == pytest.approx(exact, rel=0.03)


def test_equal_generators_give_equal_chains_and_the_global_stream_stays_untouched():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (draws(step_size=0.1, num_steps=3, num_chains=8, seed=5) for _ in range(2))
    other = draws(step_size=0.1, num_steps=3, num_chains=8, seed=6)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_noise_comes_from_the_global_stream():
    ends = []
    for _ in range(2):
        torch.manual_seed(3)
        settings = {"num_steps": 2, "step_size": 0.1, "noise_scale": 1.0}
        ends.append(langevin(gaussian_energy, torch.zeros(4, 2), generator=None, **settings))
    assert torch.equal(*ends)
    assert ends[0].std() > 0


def test_without_noise_a_step_descends_along_the_gradient():
    x = torch.tensor([[3.0, 1.0]])
    moved = langevin(gaussian_energy, x, num_steps=1, step_size=0.1, noise_scale=0.0, generator=None)
    torch.testing.assert_close(moved, x - 0.1 * (x - 2) / 0.25)


def test_a_step_of_no_size_and_no_noise_leaves_the_chains_where_they_are():
    x = torch.randn(5, 3, 2)
    still = langevin(gaussian_energy, x, num_steps=4, step_size=0.0, noise_scale=0.0, generator=None)
    assert torch.equal(still, x)


def test_no_steps_give_back_a_copy_of_the_starting_points():
    x = torch.randn(5, 2)
    end = langevin(gaussian_energy, x, num_steps=0, step_size=0.1, noise_scale=1.0, generator=None)
    assert torch.equal(end, x)
    assert end.data_ptr() != x.data_ptr()


def test_limits_hold_at_every_step():
    seen = []

    def energy(x):
        seen.append(x.detach().abs().max().item())
        return -x.square().flatten(1).sum(1)

    settings = {"num_steps": 5, "step_size": 5.0, "noise_scale": 0.1, "generator": None, "limits": (-1.0, 1.0)}
    end = langevin(energy, torch.rand(6, 2) - 0.5, **settings)
    assert len(seen) == 5
    assert max(seen) <= 1.0
    assert end.abs().max() == 1.0


def test_parameters_gather_no_gradient_and_the_start_is_left_as_it_is():
    net = nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 1), nn.Flatten(0))
    x = torch.randn(3, 2)
    kept = x.clone()
    end = langevin(net, x, num_steps=3, step_size=0.1, noise_scale=0.1, generator=None)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert not end.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_chains_run_where_gradients_are_switched_off(mode):
    with mode():
        end = langevin(
            gaussian_energy, torch.full((2, 2), 4.0), num_steps=50, step_size=0.05, noise_scale=0.0, generator=None
        )
    torch.testing.assert_close(end, torch.full((2, 2), 2.0), atol=1e-2, rtol=0)
