import dataclasses
import math

import pytest
import torch
from torch import Tensor

from genbench.prob.karras_levels import karras_levels
from genbench.prob.noise_schedule import NoiseLevels, cosine_schedule, linear_schedule
from genbench.prob.preconditioning import Preconditioning
from genbench.samplers.ddim import ddim
from genbench.samplers.heun import Churn, heun, heun_churn

MEAN, STD = 0.3, 0.5  # of the Gaussian data that `gaussian` denoises
NONE = Churn()


def gaussian(x: Tensor, sigma: Tensor, /) -> Tensor:
    """The best denoiser of N(MEAN, STD^2) on the path x_0 + sigma eps."""
    return MEAN + STD**2 / (STD**2 + sigma[:, None] ** 2) * (x - MEAN)


def crooked(x: Tensor, t: Tensor, /) -> Tensor:
    """Some smooth function of both arguments, no good denoiser."""
    return torch.tanh(1.3 * x + 0.1 * torch.sin(t.double())[:, None])


def grid(num_steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> NoiseLevels:
    return karras_levels(num_steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(num: int, dim: int = 1) -> Tensor:
    return torch.randn(num, dim, generator=seeded(99), dtype=torch.float64)


def published(x: Tensor, levels: NoiseLevels, churn: Churn, generator: torch.Generator) -> Tensor:
    """Algorithm 2 as it is printed, for sigma(t) = t and s(t) = 1; without churn it is Algorithm 1."""
    t, N = levels.sigma.tolist(), len(levels.t)
    for i in range(N):
        inside = churn.lowest <= t[i] <= churn.highest
        gamma = min(churn.amount / N, math.sqrt(2) - 1) if inside else 0.0
        t_hat = t[i] + gamma * t[i]
        if gamma > 0:
            eps = churn.noise_scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + math.sqrt(t_hat**2 - t[i] ** 2) * eps
        d = (x - crooked(x, torch.full((len(x),), t_hat))) / t_hat
        next_x = x + (t[i + 1] - t_hat) * d
        if t[i + 1] != 0:
            d_next = (next_x - crooked(next_x, torch.full((len(x),), t[i + 1]))) / t[i + 1]
            next_x = x + (t[i + 1] - t_hat) * (0.5 * d + 0.5 * d_next)
        x = next_x
    return x


@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_steps_are_those_of_algorithm_1_as_it_is_printed(num_steps: int) -> None:
    levels, x = grid(num_steps), 80.0 * start(4, 3)
    torch.testing.assert_close(heun(crooked, x, levels), published(x, levels, NONE, seeded()), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    "churn",
    [
        Churn(amount=5.0),
        Churn(amount=1e9, noise_scale=1.1),
        Churn(amount=30.0, lowest=0.01, highest=1.0, noise_scale=1.007),
    ],
)
def test_steps_with_churn_are_those_of_algorithm_2_as_it_is_printed(churn: Churn) -> None:
    levels, x = grid(18), 80.0 * start(4, 3)
    ours = heun_churn(crooked, x, levels, churn=churn, generator=seeded())
    torch.testing.assert_close(ours, published(x, levels, churn, seeded()), rtol=0.0, atol=1e-5)


def test_euler_steps_agree_with_the_scheduler_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    num_steps, x = 10, 80.0 * start(4, 3)
    levels = grid(num_steps)
    theirs = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0, sigma_data=STD)
    theirs.set_timesteps(num_steps)
    torch.testing.assert_close(theirs.sigmas.double(), levels.sigma, rtol=1e-5, atol=0.0)
    by_euler = x
    for i, t in enumerate(theirs.timesteps):
        c = Preconditioning.at(levels.sigma[i], STD)
        raw = (gaussian(by_euler, levels.sigma[i].expand(4)) - c.skip * by_euler) / c.out  # as their network would say
        by_euler = theirs.step(raw, t, by_euler).prev_sample
    ours = ddim(gaussian, x, levels, eta=0.0, generator=seeded())
    torch.testing.assert_close(ours, by_euler.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
def test_heuns_steps_agree_with_the_scheduler_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs, x = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True), start(4, 3)
    theirs.set_timesteps(10)
    sigma = torch.unique_consecutive(theirs.sigmas).double()  # theirs holds every level twice, for both slopes
    levels = NoiseLevels(t=sigma[:-1], alpha=torch.ones_like(sigma), sigma=sigma)
    x = by_heun = sigma[0] * x
    for level, t in zip(theirs.sigmas.double(), theirs.timesteps, strict=False):
        eps = (by_heun - crooked(by_heun, level.expand(4))) / level
        by_heun = theirs.step(eps, t, by_heun).prev_sample
    torch.testing.assert_close(heun(crooked, x, levels), by_heun.double(), rtol=1e-4, atol=1e-4)


def test_the_end_of_the_exact_flow_is_met_with_order_two_and_by_euler_with_order_one() -> None:
    """The flow of a Gaussian is linear, dx / dsigma = x sigma / (STD^2 + sigma^2) about the mean, and is known.

    Both samplers take the last step alike, so levels end where the noise is far below the errors.
    """
    x = MEAN + 20.0 * start(6)
    exact = MEAN + (x - MEAN) * STD / math.sqrt(STD**2 + 20.0**2)
    errors: dict[str, list[float]] = {"heun": [], "euler": []}
    for num_steps in (64, 128, 256):
        levels = grid(num_steps, sigma_min=1e-6, sigma_max=20.0)
        errors["heun"].append((heun(gaussian, x, levels) - exact).abs().max().item())
        euler = ddim(gaussian, x, levels, eta=0.0, generator=seeded())
        errors["euler"].append((euler - exact).abs().max().item())
    for name, order in (("heun", 2.0), ("euler", 1.0)):
        rates = [math.log2(coarse / fine) for coarse, fine in zip(errors[name], errors[name][1:], strict=False)]
        assert rates == pytest.approx([order] * 2, abs=0.15), name
    assert errors["heun"][-1] < 1e-3 * errors["euler"][-1] * 256


def test_eighteen_steps_of_heun_beat_as_many_calls_of_euler() -> None:
    x = MEAN + 80.0 * start(6)
    exact = MEAN + (x - MEAN) * STD / math.sqrt(STD**2 + 80.0**2)
    by_heun = (heun(gaussian, x, grid(18)) - exact).abs().max()
    by_euler = (ddim(gaussian, x, grid(35), eta=0.0, generator=seeded()) - exact).abs().max()
    assert by_heun < 0.75 * by_euler


@pytest.mark.parametrize("amount", [0.0, 10.0, 40.0])
def test_churn_keeps_the_moments_of_the_data_as_steps_grow(amount: float) -> None:
    errors = [abs(_std_of_samples(num_steps, Churn(amount=amount)) - STD) for num_steps in (32, 128, 512)]
    assert errors[0] > 3.0 * errors[1] > 9.0 * errors[2]
    assert errors[2] < 2e-4


def _std_of_samples(num_steps: int, churn: Churn) -> float:
    """Exact standard deviation of what `heun_churn` makes of N(MEAN, STD^2 + sigma_max^2).

    Every step is affine in x with independent noise, so that the variance follows by a recursion.
    """
    levels = grid(num_steps, sigma_min=0.005, sigma_max=20.0)
    gammas = churn.gamma(levels.t)
    variance = STD**2 + 20.0**2
    for i in range(num_steps):
        here = levels.t[i].item()
        grown = here * (1.0 + gammas[i].item())
        after = levels.sigma[i + 1].item()
        variance += churn.noise_scale**2 * (grown**2 - here**2)
        variance *= _slope_of_step(grown, after) ** 2
    return math.sqrt(variance)


def _slope_of_step(here: float, after: float) -> float:
    """dx' / dx for dx / dsigma = x sigma / (STD^2 + sigma^2), with the mean of both ends' slopes but to the data."""
    first = here / (STD**2 + here**2)
    euler = 1.0 + (after - here) * first
    if after == 0.0:
        return euler
    return 1.0 + 0.5 * (after - here) * (first + euler * after / (STD**2 + after**2))


def test_the_sampler_with_churn_has_the_moments_that_the_recursion_says() -> None:
    churn, num = Churn(amount=20.0, lowest=0.05, highest=5.0, noise_scale=1.05), 40_000
    levels = grid(16, sigma_min=0.005, sigma_max=20.0)
    x = MEAN + math.sqrt(STD**2 + 20.0**2) * start(num)
    drawn = heun_churn(gaussian, x, levels, churn=churn, generator=seeded())
    assert drawn.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(num))
    assert drawn.std().item() == pytest.approx(_std_of_samples(16, churn), rel=4 / math.sqrt(2 * num))
    assert drawn.std().item() > 1.02 * _std_of_samples(16, dataclasses.replace(churn, noise_scale=1.0))


def test_without_churn_no_noise_is_drawn_and_algorithm_2_is_algorithm_1() -> None:
    levels, x, generator = grid(9), 80.0 * start(4, 3), seeded()
    before = generator.get_state()
    for churn in (NONE, Churn(amount=1e9, lowest=100.0)):
        ours = heun_churn(crooked, x, levels, churn=churn, generator=generator)
        torch.testing.assert_close(ours, heun(crooked, x, levels), rtol=0.0, atol=1e-12)
    assert torch.equal(generator.get_state(), before)


def test_one_step_returns_the_estimate_of_the_data_itself() -> None:
    x = 80.0 * start(4, 2)
    assert torch.equal(heun(crooked, x, grid(1)), crooked(x, torch.full((4,), 80.0)))


@pytest.mark.parametrize("num_steps", [1, 7])
def test_the_network_is_asked_twice_at_every_level_but_once_at_the_first(num_steps: int) -> None:
    asked: list[float] = []

    def counting(x: Tensor, t: Tensor, /) -> Tensor:
        asked.append(t[0].item())
        return gaussian(x, t)

    levels = grid(num_steps)
    heun(counting, start(2), levels)
    expected = [t for t in levels.t.tolist() for _ in range(2)][1:]
    assert sorted(asked, reverse=True) == expected
    asked.clear()
    heun_churn(counting, start(2), levels, churn=Churn(amount=3.0), generator=seeded())
    assert len(asked) == 2 * num_steps - 1


def test_a_variance_preserving_path_leads_to_the_same_samples() -> None:
    """The two paths are one in x / alpha against sigma / alpha."""
    schedule = cosine_schedule(100)
    preserving = schedule.levels(20)
    r = preserving.sigma / preserving.alpha
    exploding = NoiseLevels(t=r[:-1], alpha=torch.ones_like(r), sigma=r)
    alpha, sigma = schedule.alpha, schedule.sigma

    def denoise(x_t: Tensor, t: Tensor, /) -> Tensor:
        return gaussian(x_t / alpha[t][:, None], (sigma / alpha)[t])

    x = start(5)
    ours = heun(denoise, x, preserving)
    torch.testing.assert_close(ours, heun(gaussian, x / preserving.alpha[0], exploding), rtol=1e-9, atol=1e-9)


def test_churn_follows_a_variance_preserving_path_given_the_place_of_its_levels() -> None:
    visited = grid(12, sigma_min=0.01, sigma_max=50.0)
    alpha = (1.0 + visited.sigma.square()).rsqrt()

    def place(r: Tensor) -> tuple[Tensor, Tensor]:
        return torch.atan(r), (1.0 + r.square()).rsqrt()  # its time is an angle

    def denoise(x_t: Tensor, t: Tensor, /) -> Tensor:
        return gaussian(x_t / torch.cos(t)[:, None], torch.tan(t))

    preserving = NoiseLevels(t=torch.atan(visited.t), alpha=alpha, sigma=alpha * visited.sigma)
    churn, x = Churn(amount=4.0), start(5)
    ours = heun_churn(denoise, x, preserving, churn=churn, generator=seeded(), place=place)
    theirs = heun_churn(gaussian, x / alpha[0], visited, churn=churn, generator=seeded())
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_churn_on_a_path_whose_time_is_not_sigma_needs_to_know_it() -> None:
    with pytest.raises(ValueError, match="elsewhere"):
        heun_churn(crooked, start(2), linear_schedule(10).levels(5), churn=Churn(amount=1.0), generator=seeded())


@pytest.mark.parametrize("wrong", [{"amount": -1.0}, {"noise_scale": -0.1}, {"lowest": 2.0, "highest": 1.0}])
def test_churn_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="churn is not negative"):
        Churn(**wrong)
