"""Marginals against the equations of their moments, and grids against what they promise."""

import math

import pytest
import torch
from torch import Tensor

from genbench.prob.diffusion_sde import DiffusionSDE, SubVariancePreserving, VarianceExploding, VariancePreserving
from genbench.prob.noise_schedule import schedule_of_betas

VE, VP, SUB_VP = VarianceExploding(), VariancePreserving(), SubVariancePreserving()
EVERY = pytest.mark.parametrize("sde", [VE, VP, SUB_VP], ids=["ve", "vp", "subvp"])
SHRINKING = pytest.mark.parametrize("sde", [VP, SUB_VP], ids=["vp", "subvp"])


def instants() -> Tensor:
    return torch.tensor([1e-5, 1e-3, 0.1, 0.37, 0.5, 0.9, 1.0], dtype=torch.float64)


def slope(function, t: Tensor) -> Tensor:
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


@EVERY
def test_marginals_solve_the_equations_of_their_moments(sde: DiffusionSDE) -> None:
    """d alpha / dt = f alpha and d sigma^2 / dt = 2 f sigma^2 + g^2."""
    t = instants()
    if sde is VE:
        assert torch.equal(sde.alpha(t), torch.ones_like(t))
        assert torch.equal(sde.drift(t), torch.zeros_like(t))
    else:
        torch.testing.assert_close(slope(sde.alpha, t), sde.drift(t) * sde.alpha(t), rtol=1e-12, atol=0.0)
    of_variance = slope(lambda t: sde.sigma(t).square(), t)
    expected = 2.0 * sde.drift(t) * sde.sigma(t).square() + sde.squared_diffusion(t)
    torch.testing.assert_close(of_variance, expected, rtol=1e-9, atol=0.0)


@EVERY
def test_marginals_are_those_of_many_small_steps_of_the_forward_equation(sde: DiffusionSDE) -> None:
    """Mean and variance of Euler-Maruyama steps from t = 0 are recursions without noise; their error halves."""
    errors = []
    for num_steps in (2000, 4000):
        t, dt = torch.arange(num_steps, dtype=torch.float64) / num_steps, 1.0 / num_steps
        mean, variance = 1.0, float(sde.sigma(t[:1])) ** 2
        for f, g2 in zip(sde.drift(t).tolist(), sde.squared_diffusion(t).tolist(), strict=True):
            mean, variance = mean * (1.0 + f * dt), variance * (1.0 + f * dt) ** 2 + g2 * dt
        one = torch.ones(1, dtype=torch.float64)
        errors.append((mean / float(sde.alpha(one)) - 1.0, variance / float(sde.sigma(one)) ** 2 - 1.0))
    assert abs(errors[1][0]) < 0.02
    assert abs(errors[1][1]) < 0.01
    if abs(errors[1][1]) > 1e-6:  # the variance of VP and sub-VP ends at the fixed point of the recursion
        assert errors[0][1] / errors[1][1] == pytest.approx(2.0, abs=0.05)


@EVERY
@pytest.mark.slow
def test_points_that_walk_by_the_forward_equation_have_the_stated_law(sde: DiffusionSDE) -> None:
    num, num_steps, end = 20_000, 500, 0.6
    generator = torch.Generator().manual_seed(0)
    dt = end / num_steps
    t = dt * torch.arange(num_steps, dtype=torch.float64)
    noise = torch.randn(num, generator=generator, dtype=torch.float64)
    x = 0.8 + float(sde.sigma(t[:1])) * noise  # VE starts from data with noise of sigma_min
    for f, g2 in zip(sde.drift(t).tolist(), sde.squared_diffusion(t).tolist(), strict=True):
        x = x + f * x * dt + math.sqrt(g2 * dt) * torch.randn(num, generator=generator, dtype=torch.float64)
    at = torch.full((1,), end, dtype=torch.float64)
    mean, std = 0.8 * float(sde.alpha(at)), float(sde.sigma(at))
    assert x.mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(num) + 0.01 * mean)
    assert x.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * num) + 0.01)


def test_the_three_have_the_ends_of_their_definitions() -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(VE.sigma(t), torch.tensor([0.01, 50.0], dtype=torch.float64))
    alpha = math.exp(-0.5 * (0.1 + 0.5 * 19.9))
    torch.testing.assert_close(VP.alpha(t), torch.tensor([1.0, alpha], dtype=torch.float64))
    torch.testing.assert_close(VP.alpha(t).square() + VP.sigma(t).square(), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(SUB_VP.alpha(t), VP.alpha(t))
    torch.testing.assert_close(SUB_VP.sigma(t), VP.sigma(t).square())
    assert (VE.prior_std, VP.prior_std, SUB_VP.prior_std) == (50.0, 1.0, 1.0)


def test_sub_vp_has_less_noise_than_vp_at_every_time_and_the_same_in_the_end() -> None:
    t = instants()
    assert bool((SUB_VP.sigma(t) < VP.sigma(t)).all())
    assert float(SUB_VP.sigma(t)[-1]) == pytest.approx(float(VP.sigma(t)[-1]), abs=1e-4)


def test_vp_is_the_limit_of_ddpm() -> None:
    """beta_i = beta(i / N) / N for i = 1 .. N (Appendix B), whose error falls as 1 / N."""
    errors = []
    for num_steps in (1000, 2000):
        t = torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps
        bar = schedule_of_betas(VP.beta(t) / num_steps).alpha_bar[1:]
        errors.append((bar - VP.alpha(t).square()).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.05)
    assert errors[1] < 0.005


@EVERY
def test_the_time_of_a_ratio_is_its_inverse(sde: DiffusionSDE) -> None:
    t = instants()
    torch.testing.assert_close(sde.time(sde.ratio(t)), t, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(sde.ratio(t), sde.sigma(t) / sde.alpha(t), rtol=1e-12, atol=0.0)
    assert bool((sde.ratio(t).diff() > 0.0).all())


@EVERY
def test_the_logarithm_of_the_squared_ratio_grows_by_the_diffusion_over_the_variance(sde: DiffusionSDE) -> None:
    t = instants()
    found = slope(lambda t: 2.0 * sde.ratio(t).log(), t)
    torch.testing.assert_close(found, sde.squared_diffusion(t) / sde.sigma(t).square(), rtol=1e-9, atol=0.0)


@EVERY
def test_single_precision_keeps_its_digits_near_the_data(sde: DiffusionSDE) -> None:
    t = instants()
    for of_time in (sde.sigma, sde.squared_diffusion, sde.ratio):
        torch.testing.assert_close(of_time(t.float()).double(), of_time(t), rtol=3e-6, atol=0.0)
    torch.testing.assert_close(sde.time(sde.ratio(t.float())).double(), t, rtol=2e-5, atol=1e-6)


@EVERY
def test_even_levels_run_from_the_noise_to_t_min_and_then_to_the_data(sde: DiffusionSDE) -> None:
    levels = sde.even_levels(5, t_min=1e-3)
    torch.testing.assert_close(levels.t.diff(), torch.full((4,), -0.999 / 4, dtype=torch.float64))
    assert (levels.t[0].item(), levels.t[-1].item()) == (1.0, 1e-3)
    torch.testing.assert_close(levels.alpha[:-1], sde.alpha(levels.t))
    torch.testing.assert_close(levels.sigma[:-1], sde.sigma(levels.t))
    assert (levels.alpha[-1].item(), levels.sigma[-1].item()) == (1.0, 0.0)
    assert {levels.t.dtype, levels.alpha.dtype, levels.sigma.dtype} == {torch.float64}


@EVERY
def test_log_snr_levels_are_even_in_the_logarithm_of_the_ratio(sde: DiffusionSDE) -> None:
    levels = sde.log_snr_levels(7, t_min=1e-3)
    gaps = (levels.alpha[:-1] / levels.sigma[:-1]).log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(6), rtol=1e-9, atol=0.0)
    assert (levels.t[0].item(), levels.t[-1].item()) == (1.0, 1e-3)


@EVERY
def test_a_single_level_is_the_noise(sde: DiffusionSDE) -> None:
    for levels in (sde.even_levels(1, t_min=1e-3), sde.log_snr_levels(1, t_min=1e-3)):
        assert levels.t.tolist() == [1.0]
        assert len(levels.sigma) == 2


@EVERY
def test_no_level_is_refused(sde: DiffusionSDE) -> None:
    with pytest.raises(ValueError, match="at least 1 level"):
        sde.even_levels(0, t_min=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VarianceExploding(sigma_min=0.0), "sigma_min > 0"),
        (lambda: VarianceExploding(sigma_min=1.0, sigma_max=0.5), "sigma_min > 0"),
        (lambda: VariancePreserving(beta_min=0.0), "beta is positive"),
        (lambda: SubVariancePreserving(beta_min=2.0, beta_max=1.0), "beta is positive"),
    ],
)
def test_a_process_that_does_not_noise_is_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
