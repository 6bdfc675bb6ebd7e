import math

import pytest
import torch
from torch import Tensor

from genbench.prob.noise_schedule import NoiseLevels, NoiseSchedule, cosine_schedule, linear_schedule
from genbench.samplers.ddim import ddim
from genbench.samplers.ddpm import ddpm

MEAN, STD = 0.3, 0.5  # of the Gaussian data that `Gaussian` denoises


class Gaussian:
    """The best denoiser of N(MEAN, STD^2): E[x_0 | x_t] in closed form."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.alpha, self.sigma = schedule.alpha, schedule.sigma
        self.asked: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        alpha, sigma = self.alpha[t][:, None], self.sigma[t][:, None]
        self.asked.append(int(t[0]))
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return MEAN + gain * (x_t - alpha * MEAN)


def crooked(x_t: Tensor, t: Tensor, /) -> Tensor:
    """Some smooth function of both arguments, no good denoiser."""
    return torch.tanh(1.3 * x_t + 0.1 * torch.sin(t.double())[:, None])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(num: int, dim: int = 1) -> Tensor:
    return torch.randn(num, dim, generator=seeded(99), dtype=torch.float64)


@pytest.mark.parametrize("num_steps", [1, 7, 100])
@pytest.mark.parametrize("schedule", [linear_schedule(100), cosine_schedule(100)])
def test_ancestral_sampling_is_implicit_sampling_with_all_of_the_noise(schedule: NoiseSchedule, num_steps: int) -> None:
    levels, x = schedule.levels(num_steps), start(5, 3)
    ancestral = ddpm(crooked, x, levels, variance="beta_tilde", generator=seeded())
    implicit = ddim(crooked, x, levels, eta=1.0, generator=seeded())
    torch.testing.assert_close(ancestral, implicit, rtol=0.0, atol=1e-12)


def test_implicit_steps_are_equation_12_by_hand() -> None:
    schedule, x, eta = linear_schedule(100), start(4, 3), 0.6
    t, s = 70, 30
    levels = NoiseLevels(t=torch.tensor([t, s]), alpha=schedule.alpha[[t, s, 0]], sigma=schedule.sigma[[t, s, 0]])
    bar_t, bar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    x_0 = crooked(x, torch.full((4,), t))
    eps = (x - bar_t.sqrt() * x_0) / (1 - bar_t).sqrt()
    tau = eta * ((1 - bar_s) / (1 - bar_t)).sqrt() * (1 - bar_t / bar_s).sqrt()
    noise = torch.randn(4, 3, generator=seeded(), dtype=torch.float64)
    x_s = bar_s.sqrt() * x_0 + (1 - bar_s - tau**2).sqrt() * eps + tau * noise
    expected = crooked(x_s, torch.full((4,), s))
    torch.testing.assert_close(ddim(crooked, x, levels, eta=eta, generator=seeded()), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_a_sub_sequence_of_all_steps_is_algorithm_2(variance: str) -> None:
    schedule, x, generator = linear_schedule(30), start(4, 3), seeded()
    by_hand = x
    for t in range(30, 0, -1):
        beta, bar, before = schedule.beta[t - 1], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]
        x_0 = crooked(by_hand, torch.full((4,), t))
        eps = (by_hand - bar.sqrt() * x_0) / (1 - bar).sqrt()
        by_hand = (by_hand - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()
        if t > 1:
            std = (beta if variance == "beta" else (1 - before) / (1 - bar) * beta).sqrt()
            by_hand = by_hand + std * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    ours = ddpm(crooked, x, schedule.levels(30), variance=variance, generator=seeded())
    torch.testing.assert_close(ours, by_hand, rtol=0.0, atol=1e-10)


def crooked_noise(x_t: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The noise that `crooked` finds in x_t."""
    return (x_t - schedule.alpha[t][:, None] * crooked(x_t, t)) / schedule.sigma[t][:, None]


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_steps", [1000, 20])
def test_implicit_steps_agree_with_the_scheduler_of_diffusers(num_steps: int, eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule, x, generator = linear_schedule(1000), start(4, 3), seeded()
    theirs = diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(num_steps)
    levels = schedule.levels_at(theirs.timesteps + 1)  # their first step of noise is 0
    by_them = x
    for now in theirs.timesteps:
        eps = crooked_noise(by_them, (now + 1).expand(4), schedule)
        noise = torch.randn(4, 3, generator=generator, dtype=torch.float64) if eta else None
        by_them = theirs.step(eps, now, by_them, eta=eta, variance_noise=noise).prev_sample.double()
    ours = ddim(crooked, x, levels, eta=eta, generator=seeded())
    torch.testing.assert_close(ours, by_them, rtol=1e-3, atol=1e-3)  # their schedule is in single precision


@pytest.mark.parametrize(("variance", "name"), [("beta", "fixed_large"), ("beta_tilde", "fixed_small")])
def test_ancestral_steps_agree_with_the_scheduler_of_diffusers(variance: str, name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule, x, generator = linear_schedule(1000), start(4, 3), seeded()
    theirs = diffusers.DDPMScheduler(beta_schedule="linear", clip_sample=False, variance_type=name)
    theirs.set_timesteps(1000)
    by_them = x
    for now in theirs.timesteps:
        eps = crooked_noise(by_them, (now + 1).expand(4), schedule)
        by_them = theirs.step(eps, now, by_them, generator=generator).prev_sample.double()
    ours = ddpm(crooked, x, schedule.levels(1000), variance=variance, generator=seeded())
    torch.testing.assert_close(ours, by_them, rtol=1e-3, atol=1e-3)


def test_implicit_sampling_without_noise_depends_on_its_start_alone() -> None:
    levels, x, generator = cosine_schedule(50).levels(10), start(5), seeded(1)
    before = generator.get_state()
    first = ddim(crooked, x, levels, eta=0.0, generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(first, ddim(crooked, x, levels, eta=0.0, generator=seeded(2)))
    assert not torch.equal(first, ddim(crooked, x, levels, eta=0.5, generator=seeded(2)))


def test_implicit_sampling_maps_the_normal_law_to_the_data_as_steps_grow_small() -> None:
    schedule, ends = cosine_schedule(1000), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    errors = []
    for num_steps in (50, 200, 1000):
        low, high = ddim(Gaussian(schedule), ends, schedule.levels(num_steps), eta=0.0, generator=seeded())
        errors.append(abs((high - low).item() - STD))  # the map is affine: its slope is the std of the samples
        assert low.item() == pytest.approx(MEAN, abs=5 * errors[-1] + 1e-3)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.002


@pytest.mark.parametrize(("variance", "tolerance"), [("beta", 0.012), ("beta_tilde", 0.012)])
def test_a_thousand_ancestral_steps_give_the_moments_of_the_data(variance: str, tolerance: float) -> None:
    schedule = linear_schedule(1000)
    x = ddpm(Gaussian(schedule), start(20_000), schedule.levels(1000), variance=variance, generator=seeded())
    assert x.std().item() == pytest.approx(STD, abs=tolerance)  # 4 standard errors are 0.010
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(20_000))


@pytest.mark.parametrize(("variance", "too_narrow"), [("beta", False), ("beta_tilde", True)])
def test_few_ancestral_steps_miss_the_variance_of_the_data_by_as_much_as_theory_says(
    variance: str, too_narrow: bool
) -> None:
    schedule = linear_schedule(1000)
    bar = schedule.alpha_bar[[*schedule.levels(50).t.tolist(), 0]]
    expected = 1.0  # variance of x_T, then of every x_s = E[x_s | x_t] + noise, linear in x_t
    for bar_t, bar_s in zip(bar[:-1].tolist(), bar[1:].tolist(), strict=True):
        slope = math.sqrt(bar_s / bar_t) * (bar_t * STD**2 + bar_t / bar_s * (1 - bar_s)) / (bar_t * STD**2 + 1 - bar_t)
        noise = 1 - bar_t / bar_s if variance == "beta" else (1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s)
        expected = slope**2 * expected + (noise if bar_s < 1 else 0.0)
    x = ddpm(Gaussian(schedule), start(20_000), schedule.levels(50), variance=variance, generator=seeded())
    assert x.std().item() == pytest.approx(math.sqrt(expected), rel=4 / math.sqrt(2 * 20_000))
    assert (math.sqrt(expected) < 0.96 * STD) == too_narrow


def test_both_samplers_ask_the_network_once_at_every_level() -> None:
    schedule = linear_schedule(100)
    levels = schedule.levels(9)
    for draw in (
        lambda model: ddpm(model, start(3), levels, variance="beta", generator=seeded()),
        lambda model: ddim(model, start(3), levels, eta=0.3, generator=seeded()),
    ):
        model = Gaussian(schedule)
        draw(model)
        assert model.asked == levels.t.tolist()


def test_the_last_step_returns_the_estimate_of_the_data_itself() -> None:
    levels, x = linear_schedule(100).levels(1), start(4)
    expected = crooked(x, torch.full((4,), 100))
    assert torch.equal(ddpm(crooked, x, levels, variance="beta", generator=seeded()), expected)
    assert torch.equal(ddim(crooked, x, levels, eta=1.0, generator=seeded()), expected)


def test_implicit_sampling_follows_a_variance_exploding_path_too() -> None:
    sigma = torch.cat([torch.logspace(1.5, -3, 400, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    levels = NoiseLevels(t=torch.arange(400), alpha=torch.ones(401, dtype=torch.float64), sigma=sigma)

    def denoise(x_t: Tensor, t: Tensor, /) -> Tensor:
        return x_t * STD**2 / (STD**2 + sigma[t][:, None] ** 2)

    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64) * sigma[0]
    low, high = ddim(denoise, ends, levels, eta=0.0, generator=seeded())
    assert (high - low).item() == pytest.approx(STD, abs=0.005)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_a_share_of_noise_outside_0_to_1_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match="eta"):
        ddim(crooked, start(2), linear_schedule(10).levels(5), eta=eta, generator=seeded())
