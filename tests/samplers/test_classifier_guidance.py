"""Guidance by a classifier on a mixture whose scores, classes and conditionals are known in closed form."""

import pytest
import torch
from torch import Tensor

from genbench.nn.noisy_classifier import class_slope
from genbench.prob import prediction
from genbench.prob.diffusion_bound import learned_log_variance
from genbench.prob.noise_schedule import NoiseSchedule, cosine_schedule, linear_schedule
from genbench.samplers.ddim import ddim
from genbench.samplers.ddpm import ddpm, ddpm_learned
from genbench.samplers.dpm_solver_pp import dpm_solver_pp
from genbench.samplers.heun import heun
from genbench.samplers.predictor_corrector import predictor_corrector

MEANS = torch.tensor([[-0.8, 0.2], [0.6, -0.3]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5], dtype=torch.float64)[:, None]  # unequal, so that no boundary is straight
SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)


class Mixture:
    """Two Gaussians, the classes, noised along a schedule."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def _parts(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha (B, 1, 1), variances (B, K, 1) and distances to the means (B, K, D) of the noised components."""
        alpha, sigma = (values[t][:, None, None] for values in (self.schedule.alpha, self.schedule.sigma))
        return alpha, (alpha * STDS).square() + sigma.square(), x_t[:, None] - alpha * MEANS

    def logits(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p(y, x_t) but for a constant: (B, K)."""
        _, variance, gap = self._parts(x_t, t)
        return SHARES.log() - 0.5 * (gap.square() / variance + variance.log()).sum(2)

    def denoised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t, y] of either class: (B, K, D)."""
        alpha, variance, gap = self._parts(x_t, t)
        return MEANS + alpha * STDS.square() / variance * gap

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t]: (B, D)."""
        share = self.logits(x_t, t).softmax(1)[:, :, None]
        return (share * self.denoised(x_t, t)).sum(1)

    def slope(self, x_t: Tensor, t: Tensor, y: int) -> Tensor:
        """grad log p(y | x_t) = grad log p(x_t | y) - grad log p(x_t): (B, D)."""
        _, variance, gap = self._parts(x_t, t)
        scores, share = -gap / variance, self.logits(x_t, t).softmax(1)[:, :, None]
        return scores[:, y] - (share * scores).sum(1)

    def level(self, t: Tensor) -> dict[str, Tensor]:
        """Factors shaped for points."""
        return {"alpha": self.schedule.alpha[t][:, None], "sigma": self.schedule.sigma[t][:, None]}

    def guided(self, y: int):
        """The denoiser of all points with the slope of a class in its score."""
        return lambda x_t, t: prediction.with_slope(self.denoise(x_t, t), self.slope(x_t, t, y), **self.level(t))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(num: int = 40) -> Tensor:
    return 1.5 * torch.randn(num, 2, generator=seeded(9), dtype=torch.float64)


@pytest.mark.parametrize("t", [1, 40, 100])
@pytest.mark.parametrize("y", [0, 1])
def test_the_slope_of_a_classifier_is_that_of_the_closed_form(t: int, y: int) -> None:
    law, x = Mixture(linear_schedule(100)), points()
    times, labels = torch.full((len(x),), t), torch.full((len(x),), y)
    found = class_slope(law.logits, x, times, labels)
    torch.testing.assert_close(found, law.slope(x, times, y), rtol=1e-9, atol=1e-10)
    assert not found.requires_grad
    with torch.inference_mode():
        again = class_slope(law.logits, x.clone(), times.clone(), labels.clone())
    assert torch.equal(again, found)


def test_every_example_climbs_towards_its_own_class() -> None:
    law, x = Mixture(linear_schedule(100)), points()
    t, labels = torch.arange(1, 41), torch.arange(40) % 2
    expected = torch.stack([law.slope(x, t, 0), law.slope(x, t, 1)])[labels, torch.arange(40)]
    torch.testing.assert_close(class_slope(law.logits, x, t, labels), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("schedule", [linear_schedule(100), cosine_schedule(100)])
@pytest.mark.parametrize("y", [0, 1])
def test_bayes_rule_makes_the_denoiser_of_all_that_of_a_class(schedule: NoiseSchedule, y: int) -> None:
    law, x = Mixture(schedule), points()
    for t in (1, 10, 50, 90, 99):
        times = torch.full((len(x),), t)
        torch.testing.assert_close(law.guided(y)(x, times), law.denoised(x, times)[:, y], rtol=1e-8, atol=1e-8)


def test_the_slope_in_the_estimate_is_the_slope_in_the_noise() -> None:
    """Algorithm 2: eps - sigma slope."""
    x_t, x_0, slope = points(), 0.5 * points(), torch.sin(points())
    at = {"alpha": torch.tensor(0.8, dtype=torch.float64), "sigma": torch.tensor(0.6, dtype=torch.float64)}
    eps, shifted = ((x_t - at["alpha"] * a) / at["sigma"] for a in (x_0, prediction.with_slope(x_0, slope, **at)))
    torch.testing.assert_close(shifted, eps - at["sigma"] * slope)


SAMPLERS = {
    "ddim": lambda denoise, x, levels, seed: ddim(denoise, x, levels, eta=0.0, generator=seeded(seed)),
    "ddim, eta 1": lambda denoise, x, levels, seed: ddim(denoise, x, levels, eta=1.0, generator=seeded(seed)),
    "dpm_solver_pp": lambda denoise, x, levels, seed: dpm_solver_pp(denoise, x, levels),
    "heun": lambda denoise, x, levels, seed: heun(denoise, x, levels),
    "predictor_corrector": lambda denoise, x, levels, seed: predictor_corrector(
        denoise, x, levels, corrector_steps=1, snr=0.1, generator=seeded(seed)
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("y", [0, 1])
def test_every_sampler_of_guided_scores_draws_what_it_draws_of_the_class(name: str, y: int) -> None:
    """Point by point, at a number of steps at which neither is right."""
    law, x = Mixture(linear_schedule(100)), points()
    levels = law.schedule.levels(12)
    guided = SAMPLERS[name](law.guided(y), x, levels, 3)
    of_class = SAMPLERS[name](lambda x_t, t: law.denoised(x_t, t)[:, y], x, levels, 3)
    torch.testing.assert_close(guided, of_class, rtol=0.0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("y", [0, 1])
def test_implicit_steps_draw_the_law_of_the_class(y: int) -> None:
    law = Mixture(linear_schedule(1000))
    x = torch.randn(5000, 2, generator=seeded(1), dtype=torch.float64)
    drawn = ddim(law.guided(y), x, law.schedule.levels(1000), eta=0.0, generator=seeded())
    error = STDS[y].item() / 5000**0.5
    torch.testing.assert_close(drawn.mean(0), MEANS[y], rtol=0.0, atol=4 * error + 0.01)
    torch.testing.assert_close(drawn.std(0), STDS[y].expand(2), rtol=0.03, atol=0.0)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_ancestral_steps_with_a_slope_are_algorithm_1_by_hand(variance: str) -> None:
    law, x, s, generator = Mixture(linear_schedule(30)), points(), 2.5, seeded()
    schedule, by_hand = law.schedule, x
    for t in range(30, 0, -1):
        beta, bar, before = schedule.beta[t - 1], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]
        times = torch.full((len(x),), t)
        eps = (by_hand - bar.sqrt() * law.denoise(by_hand, times)) / (1 - bar).sqrt()
        mean = (by_hand - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()
        if t > 1:
            Sigma = beta if variance == "beta" else (1 - before) / (1 - bar) * beta
            mean = mean + s * Sigma * law.slope(by_hand, times, 1)
            mean = mean + Sigma.sqrt() * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        by_hand = mean
    found = ddpm(
        law.denoise,
        x,
        schedule.levels(30),
        variance=variance,
        generator=seeded(),
        slope=lambda x_t, t: s * law.slope(x_t, t, 1),
    )
    torch.testing.assert_close(found, by_hand, rtol=0.0, atol=1e-9)


def test_learned_variances_scale_the_slope_dimension_by_dimension() -> None:
    """Of one step from the last level but one, whose variances are shares of the way between the bounds."""
    law, x = Mixture(linear_schedule(30)), points()
    levels = law.schedule.levels(2)
    share = torch.tensor([0.2, 0.9], dtype=torch.float64).expand(len(x), -1)
    seen: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(x_t)
        return law.denoise(x_t, t), share

    ddpm_learned(denoise, x, levels, generator=seeded())
    ddpm_learned(denoise, x, levels, generator=seeded(), slope=lambda x_t, t: law.slope(x_t, t, 0))
    steps = levels.steps
    Sigma = learned_log_variance(share, steps.beta[0].log(), steps.beta_tilde[0].log()).exp()
    expected = Sigma * law.slope(x, torch.full((len(x),), 30), 0)
    torch.testing.assert_close(seen[3] - seen[1], expected, rtol=0.0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("y", [0, 1])
def test_ancestral_steps_draw_the_law_of_the_class_as_they_grow_small(y: int) -> None:
    errors = []
    for num_steps in (15, 500):
        law = Mixture(linear_schedule(1000))
        x = torch.randn(4000, 2, generator=seeded(1), dtype=torch.float64)
        drawn = ddpm(
            law.denoise,
            x,
            law.schedule.levels(num_steps),
            variance="beta",
            generator=seeded(2),
            slope=lambda x_t, t, law=law: law.slope(x_t, t, y),
        )
        errors.append((drawn.mean(0) - MEANS[y]).abs().max().item())
    assert errors[1] < 4 * STDS[y].item() / 4000**0.5 + 0.01
    assert errors[1] < errors[0]
    torch.testing.assert_close(drawn.std(0), STDS[y].expand(2), rtol=0.05, atol=0.0)
