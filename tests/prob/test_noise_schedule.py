import math

import pytest
import torch

from genbench.prob.noise_schedule import (
    NoiseLevels,
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    noise_schedule,
    schedule_of_betas,
)

SCHEDULES = [linear_schedule(1000), linear_schedule(50), cosine_schedule(1000), cosine_schedule(50)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_signal_falls_from_all_to_almost_nothing_and_variance_is_kept(schedule: NoiseSchedule) -> None:
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar[0] == 1.0
    assert 0.0 < schedule.alpha_bar[-1] < 1e-4
    assert bool((schedule.snr.diff() < 0).all())
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones_like(schedule.alpha))


def test_linear_schedule_has_the_two_ends_of_the_paper_and_even_steps() -> None:
    beta = linear_schedule(1000).beta
    torch.testing.assert_close(beta, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_cosine_schedule_follows_the_squared_cosine_until_its_last_steps_are_capped() -> None:
    schedule = cosine_schedule(1000)
    at = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1000)]
    expected = torch.tensor(at, dtype=torch.float64) / at[0]
    torch.testing.assert_close(schedule.alpha_bar[:-1], expected, rtol=1e-9, atol=0.0)
    assert schedule.beta.max().item() == pytest.approx(0.999, abs=1e-12)


def test_fewer_steps_of_a_schedule_add_as_much_noise_at_the_same_share_of_the_way() -> None:
    coarse, fine = linear_schedule(200), linear_schedule(1000)
    torch.testing.assert_close(coarse.alpha_bar[100].log(), fine.alpha_bar[500].log(), rtol=0.03, atol=0.0)


def test_names_choose_the_schedule() -> None:
    torch.testing.assert_close(noise_schedule("linear", 10).alpha_bar, linear_schedule(10).alpha_bar)
    torch.testing.assert_close(noise_schedule("cosine", 10).alpha_bar, cosine_schedule(10).alpha_bar)


def test_steps_of_the_forward_process_compose_to_the_closed_form_of_its_marginals() -> None:
    schedule = linear_schedule(1000)
    mean, variance = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for t, beta in enumerate(schedule.beta, start=1):
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        torch.testing.assert_close(mean, schedule.alpha[t], rtol=1e-11, atol=0.0)
        torch.testing.assert_close(variance, schedule.sigma[t] ** 2, rtol=1e-11, atol=0.0)


def test_reverse_steps_are_the_posterior_of_equation_7() -> None:
    schedule = linear_schedule(100)
    beta, bar, before = schedule.beta, schedule.alpha_bar[1:], schedule.alpha_bar[:-1]
    steps = schedule.steps
    torch.testing.assert_close(steps.data, before.sqrt() * beta / (1 - bar), rtol=1e-10, atol=0.0)
    torch.testing.assert_close(steps.noisy, (1 - beta).sqrt() * (1 - before) / (1 - bar), rtol=1e-10, atol=0.0)
    torch.testing.assert_close(steps.beta, beta, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(steps.beta_tilde, (1 - before) / (1 - bar) * beta, rtol=1e-10, atol=0.0)
    assert bool((steps.variance("beta_tilde") < steps.variance("beta")).all())


def test_the_mean_of_a_reverse_step_is_that_of_algorithm_2() -> None:
    schedule = cosine_schedule(100)
    x_t, eps = torch.randn(2, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_0 = (x_t - schedule.sigma[1:] * eps) / schedule.alpha[1:]
    beta, bar = schedule.beta, schedule.alpha_bar[1:]
    by_hand = (x_t - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()
    torch.testing.assert_close(schedule.steps.noisy * x_t + schedule.steps.data * x_0, by_hand, rtol=1e-9, atol=1e-9)


def test_a_posterior_of_a_long_step_agrees_with_bayes_on_three_jointly_gaussian_variables() -> None:
    alpha_s, sigma_s, alpha_t, sigma_t = torch.tensor([0.9, 0.7, 0.5, 1.3], dtype=torch.float64)  # no VP path
    levels = NoiseLevels(
        t=torch.tensor([2]), alpha=torch.stack([alpha_t, alpha_s]), sigma=torch.stack([sigma_t, sigma_s])
    )
    covariance = alpha_t / alpha_s * sigma_s**2  # of x_s and x_t given x_0
    steps = levels.steps
    torch.testing.assert_close(steps.noisy[0], covariance / sigma_t**2)
    torch.testing.assert_close(steps.data[0], alpha_s - covariance / sigma_t**2 * alpha_t)
    torch.testing.assert_close(steps.beta_tilde[0], sigma_s**2 - covariance**2 / sigma_t**2)


def test_as_many_levels_as_steps_are_all_of_them() -> None:
    schedule = cosine_schedule(37)
    levels = schedule.levels(37)
    assert levels.t.tolist() == list(range(37, 0, -1))
    torch.testing.assert_close(levels.alpha, schedule.alpha.flip(0))
    torch.testing.assert_close(levels.sigma, schedule.sigma.flip(0))


@pytest.mark.parametrize("num_steps", [2, 10, 50, 999])
def test_a_sub_sequence_keeps_both_ends_falls_strictly_and_ends_in_the_data(num_steps: int) -> None:
    levels = linear_schedule(1000).levels(num_steps)
    assert (levels.t[0], levels.t[-1], len(levels.t)) == (1000, 1, num_steps)
    assert bool((levels.t.diff() < 0).all())
    assert (levels.alpha[-1], levels.sigma[-1]) == (1.0, 0.0)


def test_a_single_level_is_the_noisiest() -> None:
    assert linear_schedule(1000).levels(1).t.tolist() == [1000]


@pytest.mark.parametrize("num_steps", [0, 11])
def test_impossible_sub_sequences_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"no sub-sequence of {num_steps}"):
        linear_schedule(10).levels(num_steps)


def test_a_schedule_gives_back_the_betas_it_was_made_of() -> None:
    beta = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64)
    torch.testing.assert_close(schedule_of_betas(beta).beta, beta)


@pytest.mark.parametrize("schedule", [linear_schedule(1000), cosine_schedule(1000)])
@pytest.mark.parametrize("num_steps", [2, 5, 18, 200, 1000])
def test_levels_even_in_a_root_of_the_ratio_fall_strictly_from_the_largest_to_one(
    schedule: NoiseSchedule, num_steps: int
) -> None:
    levels = schedule.karras_levels(num_steps)
    assert (levels.t[-1], len(levels.t)) == (1, num_steps)
    assert bool((levels.t.diff() < 0).all())
    assert bool((levels.t >= 1).all())
    ratio = levels.sigma[:-1] / levels.alpha[:-1]
    if num_steps <= 18:  # afterwards the schedule has too few steps with little noise
        assert ratio[0].item() == pytest.approx(80.0, rel=0.01)
        roots = ratio.pow(1 / 7)
        even = torch.linspace(float(roots[0]), float(roots[-1]), num_steps, dtype=torch.float64)
        torch.testing.assert_close(roots[:-2], even[:-2], rtol=0.02, atol=0.0)


def test_a_schedule_that_stops_early_starts_its_levels_at_its_end() -> None:
    schedule = linear_schedule(10, first=1e-3, last=1e-3)
    assert schedule.karras_levels(3).t[0] == 10
    with pytest.raises(ValueError, match="no sub-sequence of 11"):
        schedule.karras_levels(11)
