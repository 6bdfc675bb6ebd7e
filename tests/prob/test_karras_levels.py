import math

import pytest
import torch

from genbench.prob.karras_levels import karras_levels, karras_sigmas
from genbench.prob.preconditioning import Preconditioning

GRID = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}


def test_levels_are_even_in_the_root_of_the_noise() -> None:
    sigma = karras_sigmas(18, **GRID)
    roots = sigma ** (1 / 7)
    assert sigma.dtype == torch.float64
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17), rtol=1e-10, atol=0.0)
    assert (sigma[0].item(), sigma[-1].item()) == (80.0, 0.002)
    assert bool((sigma.diff() < 0).all())


def test_levels_are_those_of_equation_5_one_by_one() -> None:
    sigma = karras_sigmas(5, sigma_min=0.1, sigma_max=10.0, rho=3.0)
    by_hand = [(10 ** (1 / 3) + i / 4 * (0.1 ** (1 / 3) - 10 ** (1 / 3))) ** 3 for i in range(5)]
    assert sigma.tolist() == pytest.approx(by_hand, rel=1e-12)


def test_rho_of_one_spaces_levels_evenly_and_a_large_one_spaces_their_logarithms() -> None:
    even = karras_sigmas(9, sigma_min=1.0, sigma_max=9.0, rho=1.0)
    torch.testing.assert_close(even, torch.arange(9.0, 0.0, -1.0, dtype=torch.float64))
    steps = karras_sigmas(9, sigma_min=0.01, sigma_max=1.0, rho=1e5).log().diff()
    torch.testing.assert_close(steps, torch.full((8,), -math.log(100) / 8, dtype=torch.float64), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_a_sampler_gets_a_variance_exploding_path_whose_time_is_sigma(num_steps: int) -> None:
    levels = karras_levels(num_steps, **GRID)
    assert torch.equal(levels.t, levels.sigma[:-1])
    assert levels.sigma.shape == levels.alpha.shape == (num_steps + 1,)
    assert (levels.sigma[0].item(), levels.sigma[-1].item()) == (80.0, 0.0)
    assert bool((levels.alpha == 1.0).all())


@pytest.mark.parametrize("wrong", [{"sigma_min": 0.0}, {"sigma_min": 80.0}, {"rho": 0.0}, {"num_levels": 0}])
def test_a_grid_that_does_not_descend_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a grid has at least 1 level"):
        karras_sigmas(**{"num_levels": 5, **GRID, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.002, 0.1, 0.5, 3.0, 80.0])
def test_preconditioning_gives_inputs_and_targets_unit_variance(sigma: float) -> None:
    """Input c_in (y + n) and target (y - c_skip (y + n)) / c_out, in closed form and by Monte Carlo."""
    std = 0.7
    c = Preconditioning.at(torch.tensor(sigma, dtype=torch.float64), std)
    total = std**2 + sigma**2
    assert (c.into**2 * total).item() == pytest.approx(1.0, rel=1e-12)
    target = ((1 - c.skip) ** 2 * std**2 + c.skip**2 * sigma**2) / c.out**2
    assert target.item() == pytest.approx(1.0, rel=1e-9)
    y, n = torch.randn(2, 40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, x = std * y, std * y + sigma * n
    assert ((y - c.skip * x) / c.out).var().item() == pytest.approx(1.0, abs=5 * math.sqrt(2 / 40_000))


def test_no_other_skip_asks_less_of_the_network() -> None:
    sigma = torch.tensor([0.05, 0.5, 5.0], dtype=torch.float64)
    c = Preconditioning.at(sigma, 0.5)
    for skip in (c.skip - 0.01, c.skip + 0.01):
        needed = ((1 - skip) ** 2 * 0.25 + skip**2 * sigma**2).sqrt()
        assert bool((needed > c.out).all())


def test_the_denoiser_is_the_identity_where_the_noise_ends() -> None:
    near = Preconditioning.at(torch.tensor(1e-7, dtype=torch.float64), 0.5)
    assert near.skip.item() == pytest.approx(1.0, abs=1e-12)
    assert near.out.item() == pytest.approx(0.0, abs=1.1e-7)
    shifted = Preconditioning.at(torch.tensor([0.002]), 0.5, shift=0.002)
    assert (shifted.skip.item(), shifted.out.item()) == (1.0, 0.0)


def test_the_shift_moves_skip_and_out_alone() -> None:
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
    plain, shifted = Preconditioning.at(sigma, 0.5), Preconditioning.at(sigma, 0.5, shift=0.1)
    torch.testing.assert_close(shifted.skip, 0.25 / ((sigma - 0.1) ** 2 + 0.25))
    torch.testing.assert_close(shifted.out, (sigma - 0.1) * 0.5 / (sigma**2 + 0.25).sqrt())
    assert torch.equal(plain.into, shifted.into)
    assert torch.equal(plain.noise, sigma.log() / 4)
