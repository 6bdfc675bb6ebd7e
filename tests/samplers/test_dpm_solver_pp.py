"""The multistep solver against the paper's formulas, another implementation and a flow that is known."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from genbench.prob.diffusion_sde import DiffusionSDE, SubVariancePreserving, VarianceExploding, VariancePreserving
from genbench.prob.karras_levels import karras_levels
from genbench.prob.noise_schedule import NoiseLevels, cosine_schedule, linear_schedule
from genbench.samplers.ddim import ddim
from genbench.samplers.dpm_solver_pp import dpm_solver_pp

MEAN, STD = 0.3, 0.5  # of the Gaussian data
VP, SUB_VP = VariancePreserving(), SubVariancePreserving()
PATHS = [
    linear_schedule(100).levels(7),
    cosine_schedule(100).levels(12),
    karras_levels(9, sigma_min=0.002, sigma_max=80.0, rho=7.0),
    SUB_VP.even_levels(8, t_min=1e-3),
]


def crooked(x: Tensor, t: Tensor, /) -> Tensor:
    """Some smooth function of both arguments, no good denoiser."""
    return torch.tanh(1.3 * x + 0.1 * torch.sin(t.double())[:, None])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(num: int, dim: int = 1) -> Tensor:
    return torch.randn(num, dim, generator=seeded(99), dtype=torch.float64)


def published(x: Tensor, levels: NoiseLevels) -> Tensor:
    """Algorithm 2 of the paper as it is printed, in lambda, h and r, with a last step of first order."""
    lambdas = [math.log(a / s) if s > 0 else math.inf for a, s in zip(levels.alpha, levels.sigma, strict=True)]
    alpha, sigma, M = levels.alpha.tolist(), levels.sigma.tolist(), len(levels.t)
    buffer = [crooked(x, levels.t[0].expand(len(x)))]
    h = [lambdas[i + 1] - lambdas[i] for i in range(M)]
    x = sigma[1] / sigma[0] * x - alpha[1] * math.expm1(-h[0]) * buffer[0]
    for i in range(1, M):
        buffer.append(crooked(x, levels.t[i].expand(len(x))))
        r = h[i - 1] / h[i]
        D = buffer[i] if i == M - 1 else (1 + 1 / (2 * r)) * buffer[i] - 1 / (2 * r) * buffer[i - 1]
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * math.expm1(-h[i]) * D
    return x


@pytest.mark.parametrize("levels", PATHS, ids=["linear", "cosine", "karras", "subvp"])
def test_steps_are_those_of_algorithm_2_as_it_is_printed(levels: NoiseLevels) -> None:
    x = float(levels.sigma[0]) * start(4, 3)
    torch.testing.assert_close(dpm_solver_pp(crooked, x, levels), published(x, levels), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of numpy, about what diffusers does
def test_steps_agree_with_the_scheduler_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    levels, x = linear_schedule(1000).levels(10), start(4, 3)
    theirs = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        solver_order=2,
        prediction_type="sample",
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(timesteps=(levels.t - 1).tolist())  # their first step of noise is 0
    by_them = x
    for i, t in enumerate(theirs.timesteps):
        by_them = theirs.step(crooked(by_them.double(), levels.t[i].expand(4)), t, by_them).prev_sample
    torch.testing.assert_close(dpm_solver_pp(crooked, x, levels), by_them.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sde", [VarianceExploding(sigma_min=1e-5), VP, SUB_VP], ids=["ve", "vp", "subvp"])
def test_the_end_of_the_exact_flow_is_met_with_order_two_and_by_implicit_steps_with_order_one(
    sde: DiffusionSDE,
) -> None:
    """The flow of a Gaussian is linear: (x - alpha MEAN) keeps its ratio to the standard deviation of x.

    Both samplers take the last step alike, so levels end where the noise is far below the errors.
    """

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)

    one = torch.ones(1, dtype=torch.float64)
    alpha, sigma = float(sde.alpha(one)), float(sde.sigma(one))
    t_min = float(sde.time(1e-5 * one))
    x = sde.prior_std * start(6)
    exact = MEAN + (x - alpha * MEAN) * STD / math.hypot(alpha * STD, sigma)
    errors: dict[str, list[float]] = {"dpm_solver_pp": [], "ddim": []}
    for num_steps in (64, 128, 256):
        levels = sde.log_snr_levels(num_steps, t_min=t_min)
        errors["dpm_solver_pp"].append((dpm_solver_pp(denoise, x, levels) - exact).abs().max().item())
        implicit = ddim(denoise, x, levels, eta=0.0, generator=seeded())
        errors["ddim"].append((implicit - exact).abs().max().item())
    for name, order in (("dpm_solver_pp", 2.0), ("ddim", 1.0)):
        rates = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors[name])]
        assert rates == pytest.approx([order] * 2, abs=0.2), name
    assert errors["dpm_solver_pp"][-1] < 0.05 * errors["ddim"][-1]


@pytest.mark.parametrize("num_steps", [1, 2])
def test_one_and_two_steps_are_implicit_steps(num_steps: int) -> None:
    """There is no step between a first and a last one."""
    levels, x = VP.log_snr_levels(num_steps, t_min=1e-2), start(4, 3)
    expected = ddim(crooked, x, levels, eta=0.0, generator=seeded())
    torch.testing.assert_close(dpm_solver_pp(crooked, x, levels), expected, rtol=1e-12, atol=1e-12)


def test_the_first_level_may_have_no_signal() -> None:
    levels = NoiseLevels(
        t=torch.tensor([4, 3, 2, 1]),
        alpha=torch.tensor([0.0, 0.3, 0.7, 0.9, 1.0], dtype=torch.float64),
        sigma=torch.tensor([1.0, 0.9, 0.7, 0.4, 0.0], dtype=torch.float64),
    )
    x = start(4, 3)
    near = NoiseLevels(t=levels.t, alpha=levels.alpha.clamp(min=1e-300), sigma=levels.sigma)
    found = dpm_solver_pp(crooked, x, levels)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, dpm_solver_pp(crooked, x, near), rtol=1e-2, atol=1e-2)


def test_the_network_is_asked_once_at_every_level() -> None:
    asked = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return crooked(x, t)

    levels = linear_schedule(100).levels(9)
    dpm_solver_pp(denoise, start(3), levels)
    assert asked == levels.t.tolist()


def test_the_last_step_returns_the_estimate_of_the_data_itself() -> None:
    levels, last = linear_schedule(100).levels(5), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        last[:] = [crooked(x, t)]
        return last[0]

    assert torch.equal(dpm_solver_pp(denoise, start(4), levels), last[0])


def test_a_walk_that_ends_before_the_data_ends_with_an_implicit_step() -> None:
    full, x = VP.log_snr_levels(6, t_min=1e-2), start(4, 3)
    cut = NoiseLevels(t=full.t[:-1], alpha=full.alpha[:-1], sigma=full.sigma[:-1])
    torch.testing.assert_close(dpm_solver_pp(crooked, x, cut), published(x, cut), rtol=1e-9, atol=1e-9)
