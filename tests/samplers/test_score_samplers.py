"""Samplers of scores against the printed algorithms, and against laws whose scores are known.

With the score of a Gaussian every step is affine, so that the responses of a sampler to its starting point and to each
of its draws of noise, asked of the code itself, give mean and variance of its samples without drawing any.
"""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genbench.prob.diffusion_sde import DiffusionSDE, SubVariancePreserving, VarianceExploding, VariancePreserving
from genbench.prob.noise_schedule import NoiseLevels
from genbench.samplers import annealed_langevin as annealed_langevin_file
from genbench.samplers import euler_maruyama as euler_maruyama_file
from genbench.samplers import predictor_corrector as predictor_corrector_file
from genbench.samplers.annealed_langevin import annealed_langevin
from genbench.samplers.dpm_solver_pp import dpm_solver_pp
from genbench.samplers.euler_maruyama import euler_maruyama
from genbench.samplers.predictor_corrector import predictor_corrector

MEAN, STD = 0.3, 0.5  # of the Gaussian data
VE, VP, SUB_VP = VarianceExploding(), VariancePreserving(), SubVariancePreserving()
EVERY = pytest.mark.parametrize("sde", [VE, VP, SUB_VP], ids=["ve", "vp", "subvp"])


def crooked(x: Tensor, t: Tensor, /) -> Tensor:
    """Some smooth function of both arguments, no good denoiser."""
    return torch.tanh(1.3 * x + 0.1 * torch.sin(5.0 * t.double())[:, None])


def gaussian(sde: DiffusionSDE) -> Callable[[Tensor, Tensor], Tensor]:
    """The best denoiser of N(MEAN, STD^2)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)

    return denoise


class Mixture:
    """The best denoiser of a mixture of two Gaussians on the line, and the distribution function of its draws."""

    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([-1.0, 0.6], dtype=torch.float64)
    stds = torch.tensor([0.15, 0.3], dtype=torch.float64)

    def __init__(self, alpha: Callable[[Tensor], Tensor], sigma: Callable[[Tensor], Tensor]) -> None:
        self.alpha, self.sigma = alpha, sigma

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        alpha, sigma = self.alpha(t)[:, None], self.sigma(t)[:, None]
        variance = (alpha * self.stds).square() + sigma**2  # (B, 2)
        gap = x - alpha * self.means
        share = torch.softmax(self.weights.log() - 0.5 * variance.log() - 0.5 * gap.square() / variance, dim=1)
        return (share * (self.means + alpha * self.stds.square() / variance * gap)).sum(1, keepdim=True)

    def distance(self, x: Tensor) -> float:
        """Kolmogorov's distance between draws (N, 1) and the law."""
        x = x.flatten().sort().values
        expected = (self.weights * torch.distributions.Normal(self.means, self.stds).cdf(x[:, None])).sum(1)
        found = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
        return max((found[1:] - expected).max().item(), (expected - found[:-1]).max().item())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(num: int, dim: int = 1) -> Tensor:
    return torch.randn(num, dim, generator=seeded(99), dtype=torch.float64)


def moments(monkeypatch, module, sampler, *, num_draws: int, std: float, shift: float = 0.0) -> tuple[float, float]:
    """Exact mean and variance of the samples of an affine sampler that starts at N(shift, std^2).

    Row 0 has neither start nor noise, row 1 starts at 1, and row 2 + i has noise of 1 in the draw i alone.
    """
    draws = iter(range(num_draws))

    def probe(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.zeros_like(x)
        noise[2 + next(draws)] = 1.0
        return noise

    x = torch.zeros(2 + num_draws, 1, dtype=torch.float64)
    x[1] = 1.0
    with monkeypatch.context() as patch:
        patch.setattr(module, "noise_like", probe)
        found = sampler(x).flatten()
    assert next(draws, None) is None, "fewer draws than were said"
    response = found[1:] - found[0]
    return (found[0] + response[0] * shift).item(), (response[0] * std).item() ** 2 + response[1:].square().sum().item()


def rates(errors: list[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


# Euler-Maruyama


@EVERY
def test_euler_maruyama_steps_are_the_reverse_equation_as_it_is_printed(sde: DiffusionSDE) -> None:
    levels, x, generator = sde.even_levels(6, t_min=1e-2), sde.prior_std * start(4, 3), seeded()
    by_hand = x
    t = levels.t
    for i in range(5):
        here = t[i].expand(4)
        alpha, sigma = sde.alpha(t[i]), sde.sigma(t[i])
        score = -(by_hand - alpha * crooked(by_hand, here)) / sigma**2
        f, g = sde.drift(t[i]), sde.squared_diffusion(t[i]).sqrt()
        dt, z = t[i + 1] - t[i], torch.randn(4, 3, generator=generator, dtype=torch.float64)
        by_hand = by_hand + (f * by_hand - g**2 * score) * dt + g * (-dt).sqrt() * z
    by_hand = crooked(by_hand, t[5].expand(4))
    ours = euler_maruyama(crooked, x, levels, sde=sde, generator=seeded())
    torch.testing.assert_close(ours, by_hand, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("sde", "t_min"), [(VE, 0.5), (VP, 0.02), (SUB_VP, 0.02)], ids=["ve", "vp", "subvp"])
def test_euler_maruyama_meets_the_law_of_the_data_with_order_one(sde: DiffusionSDE, t_min: float, monkeypatch) -> None:
    """From the exact law at t = 1 to the denoised law at t_min, both Gaussian with known moments.

    The first-order error of the variance of VE is proportional to sigma^2 / (STD^2 + sigma^2)^2 at t_min, which is next
    to nothing at little noise.
    """
    one = torch.ones(1, dtype=torch.float64)
    alpha_1, sigma_1 = float(sde.alpha(one)), float(sde.sigma(one))
    alpha, sigma = float(sde.alpha(t_min * one)), float(sde.sigma(t_min * one))
    expected = (alpha * STD**2) ** 2 / (alpha**2 * STD**2 + sigma**2)  # variance of E[x_0 | x] at t_min
    errors: dict[str, list[float]] = {"mean": [], "variance": []}
    for num_steps in (200, 400, 800):
        levels = sde.even_levels(num_steps + 1, t_min=t_min)
        mean, variance = moments(
            monkeypatch,
            euler_maruyama_file,
            lambda x, levels=levels: euler_maruyama(gaussian(sde), x, levels, sde=sde, generator=seeded()),
            num_draws=num_steps,
            std=math.hypot(alpha_1 * STD, sigma_1),
            shift=alpha_1 * MEAN,
        )
        errors["mean"].append(abs(mean - MEAN))
        errors["variance"].append(abs(variance - expected))
    assert rates(errors["variance"]) == pytest.approx([1.0, 1.0], abs=0.1)
    assert errors["variance"][-1] < 0.02 * STD**2
    if errors["mean"][-1] > 1e-9:  # VE keeps the mean in every step
        assert rates(errors["mean"]) == pytest.approx([1.0, 1.0], abs=0.15)
    assert errors["mean"][-1] < 5e-3


@EVERY
@pytest.mark.slow
def test_euler_maruyama_draws_a_mixture(sde: DiffusionSDE) -> None:
    law = Mixture(sde.alpha, sde.sigma)
    levels = sde.even_levels(300, t_min=1e-3)
    x = euler_maruyama(law, sde.prior_std * start(10_000), levels, sde=sde, generator=seeded())
    assert law.distance(x) < 1.95 / math.sqrt(10_000) + 0.01  # the 0.1 % point, and the error of the steps


# Predictor-corrector


def published(x: Tensor, levels: NoiseLevels, *, vp: bool, M: int, snr: float, generator: torch.Generator) -> Tensor:
    """Algorithms 2 to 5 in the paper's sigma_i and beta_i, correcting first, with the last step's noise left out."""
    alpha, sigma = levels.alpha, levels.sigma

    def score_at(x: Tensor, i: int) -> Tensor:
        x_0 = crooked(x, levels.t[i].expand(len(x)))
        return (alpha[i] * x_0 - x) / sigma[i] ** 2

    def z() -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    for i in range(len(levels.t)):
        beta_i = 1 - (alpha[i] / alpha[i + 1]) ** 2
        for _ in range(M):
            g = score_at(x, i)
            noise = z()
            ratio = noise.norm(dim=1).mean() / g.norm(dim=1).mean()
            epsilon = 2 * (1 - beta_i if vp else 1) * (snr * ratio) ** 2
            x = x + epsilon * g + (2 * epsilon).sqrt() * noise
        if i + 1 == len(levels.t):
            return crooked(x, levels.t[i].expand(len(x)))
        s = score_at(x, i)
        if vp:
            x = (2 - (1 - beta_i).sqrt()) * x + beta_i * s + beta_i.sqrt() * z()
        else:
            x = x + (sigma[i] ** 2 - sigma[i + 1] ** 2) * s + (sigma[i] ** 2 - sigma[i + 1] ** 2).sqrt() * z()
    raise AssertionError


@pytest.mark.parametrize("M", [0, 1, 3])
@pytest.mark.parametrize("sde", [VE, VP], ids=["ve", "vp"])
def test_predictor_and_corrector_are_the_algorithms_as_they_are_printed(sde: DiffusionSDE, M: int) -> None:
    levels, x = sde.even_levels(8, t_min=1e-2), sde.prior_std * start(5, 3)
    by_hand = published(x, levels, vp=sde is VP, M=M, snr=0.16, generator=seeded())
    ours = predictor_corrector(crooked, x, levels, corrector_steps=M, snr=0.16, generator=seeded())
    torch.testing.assert_close(ours, by_hand, rtol=1e-9, atol=1e-9)


@EVERY
def test_the_predictor_meets_the_law_of_the_data_with_order_one(sde: DiffusionSDE, monkeypatch) -> None:
    t_min, one = 0.02, torch.ones(1, dtype=torch.float64)
    alpha_1, sigma_1 = float(sde.alpha(one)), float(sde.sigma(one))
    alpha, sigma = float(sde.alpha(t_min * one)), float(sde.sigma(t_min * one))
    expected = (alpha * STD**2) ** 2 / (alpha**2 * STD**2 + sigma**2)
    errors = []
    for num_steps in (200, 400, 800):
        levels = sde.even_levels(num_steps + 1, t_min=t_min)
        how = {"corrector_steps": 0, "snr": 0.16, "generator": seeded()}
        _, variance = moments(
            monkeypatch,
            predictor_corrector_file,
            lambda x, levels=levels, how=how: predictor_corrector(gaussian(sde), x, levels, **how),
            num_draws=num_steps,
            std=math.hypot(alpha_1 * STD, sigma_1),
        )
        errors.append(abs(variance - expected))
    assert rates(errors) == pytest.approx([1.0, 1.0], abs=0.1)
    assert errors[-1] < 0.02 * STD**2


def test_the_corrector_keeps_the_law_of_its_level_up_to_an_excess_of_the_square_of_its_ratio() -> None:
    """At one level for ever: variance v / (1 - h / (2 v)) where the step h is, with |score| = |eps| / sqrt(v) in the
    mean, 2 snr^2 v, so that the excess is snr^2."""
    snr, sigma = 0.2, 0.4
    levels = NoiseLevels(
        t=torch.full((200,), 0.5, dtype=torch.float64),
        alpha=torch.ones(201, dtype=torch.float64),
        sigma=torch.full((201,), sigma, dtype=torch.float64),
    )
    v = STD**2 + sigma**2

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return MEAN + STD**2 / v * (x - MEAN)

    x = predictor_corrector(
        denoise, 3.0 * start(40_000), levels, predictor="none", corrector_steps=1, snr=snr, generator=seeded()
    )
    before_denoising = (x - MEAN) * v / STD**2
    # |score| is that of samples of variance w = v / (1 - h / (2 v)): h = 2 snr^2 v^2 / w, so w = v (1 + snr^2)
    assert before_denoising.var().item() == pytest.approx(v * (1 + snr**2), rel=4 * math.sqrt(2 / 40_000))
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(40_000))


@EVERY
@pytest.mark.slow
@pytest.mark.parametrize("M", [0, 1])
def test_predictor_and_corrector_draw_a_mixture(sde: DiffusionSDE, M: int) -> None:
    law = Mixture(sde.alpha, sde.sigma)
    levels = sde.even_levels(300, t_min=1e-3)
    x = predictor_corrector(law, sde.prior_std * start(10_000), levels, corrector_steps=M, snr=0.1, generator=seeded())
    assert law.distance(x) < 1.95 / math.sqrt(10_000) + 0.01


def test_the_corrector_repairs_few_steps_of_the_predictor() -> None:
    law, levels, x = Mixture(VE.alpha, VE.sigma), VE.even_levels(25, t_min=1e-3), VE.prior_std * start(10_000)
    distances = [
        law.distance(predictor_corrector(law, x, levels, corrector_steps=M, snr=0.16, generator=seeded()))
        for M in (0, 5)
    ]
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize(("predictor", "M", "calls"), [("reverse_diffusion", 2, 21), ("none", 2, 15)])
def test_predictor_and_corrector_ask_the_network_as_often_as_they_say(predictor: str, M: int, calls: int) -> None:
    counted = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        counted.append(float(t[0]))
        return crooked(x, t)

    levels = VP.even_levels(7, t_min=1e-2)
    predictor_corrector(denoise, start(3), levels, predictor=predictor, corrector_steps=M, snr=0.1, generator=seeded())
    assert len(counted) == calls
    assert set(counted) == set(levels.t.tolist())


@pytest.mark.parametrize("wrong", [{"corrector_steps": -1}, {"snr": 0.0}, {"predictor": "none", "corrector_steps": 0}])
def test_a_sampler_that_does_nothing_is_refused(wrong: dict[str, object]) -> None:
    how = {"corrector_steps": 1, "snr": 0.1, **wrong}
    with pytest.raises(ValueError, match="positive ratio"):
        predictor_corrector(crooked, start(2), VP.even_levels(3, t_min=1e-2), **how, generator=seeded())


# Annealed Langevin dynamics


def geometric(num: int, *, first: float, last: float) -> NoiseLevels:
    sigma = torch.logspace(math.log10(first), math.log10(last), num, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return NoiseLevels(t=sigma, alpha=one.expand(num + 1), sigma=torch.cat([sigma, 0.0 * one]))


def noised_by_time(x: Tensor, sigma: Tensor) -> Tensor:
    """The best denoiser of N(MEAN, STD^2) where the time is sigma."""
    return MEAN + STD**2 / (STD**2 + sigma[:, None] ** 2) * (x - MEAN)


def test_annealed_langevin_is_algorithm_1_as_it_is_printed() -> None:
    levels, x, generator, epsilon, T = geometric(4, first=3.0, last=0.1), start(4, 3), seeded(), 2e-3, 3
    by_hand, sigma = x, levels.sigma
    for i in range(4):
        a = epsilon * sigma[i] ** 2 / sigma[3] ** 2
        for _ in range(T):
            score = (crooked(by_hand, sigma[i].expand(4)) - by_hand) / sigma[i] ** 2
            by_hand = by_hand + a / 2 * score + a.sqrt() * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    by_hand = crooked(by_hand, sigma[3].expand(4))
    how = {"steps_per_level": T, "step_size": epsilon / 0.1**2, "generator": seeded()}
    torch.testing.assert_close(annealed_langevin(crooked, x, levels, **how), by_hand, rtol=1e-9, atol=1e-9)


def test_langevin_dynamics_have_the_stated_excess_of_variance(monkeypatch) -> None:
    """v / (1 - step_size sigma^2 / (4 v)) of the chain, seen through the denoising step; the excess is of order one."""
    sigma, errors = 0.3, []
    v = STD**2 + sigma**2
    levels = NoiseLevels(
        t=torch.tensor([sigma], dtype=torch.float64),
        alpha=torch.ones(2, dtype=torch.float64),
        sigma=torch.tensor([sigma, 0.0], dtype=torch.float64),
    )
    for step_size in (1.0, 0.5, 0.25):
        how = {"steps_per_level": 600, "step_size": step_size, "generator": seeded()}
        mean, variance = moments(
            monkeypatch,
            annealed_langevin_file,
            lambda x, how=how: annealed_langevin(noised_by_time, x, levels, **how),
            num_draws=600,
            std=5.0,
        )
        chain = variance * (v / STD**2) ** 2
        assert chain == pytest.approx(v / (1 - step_size * sigma**2 / (4 * v)), rel=1e-9)
        assert mean == pytest.approx(MEAN, abs=1e-9)
        errors.append(chain - v)
    assert rates(errors) == pytest.approx([1.0, 1.0], abs=0.1)


def annealed_moments(levels: NoiseLevels, *, steps: int, step_size: float, mean: float, std: float) -> list[float]:
    """Mean and variance of the denoised samples by the recursion of a chain whose score is -(x - MEAN) / w."""
    variance, w = std**2, 1.0
    for sigma in levels.t.tolist():
        w = STD**2 + sigma**2
        kept = 1.0 - step_size * sigma**2 / (2.0 * w)
        for _ in range(steps):
            mean, variance = MEAN + kept * (mean - MEAN), kept**2 * variance + step_size * sigma**2
    return [MEAN + STD**2 / w * (mean - MEAN), (STD**2 / w) ** 2 * variance]


@pytest.mark.slow
def test_annealing_forgets_its_start_and_meets_the_law_of_the_data(monkeypatch) -> None:
    """Mean and variance of the denoised samples, exactly, as steps grow small and the time at each level long."""
    levels, errors = geometric(20, first=20.0, last=0.05), []
    expected = STD**4 / (STD**2 + 0.05**2)
    for steps, step_size in ((8, 0.4), (32, 0.2), (128, 0.1)):
        how = {"steps_per_level": steps, "step_size": step_size, "generator": seeded()}
        mean, variance = moments(
            monkeypatch,
            annealed_langevin_file,
            lambda x, how=how: annealed_langevin(noised_by_time, x, levels, **how),
            num_draws=20 * steps,
            std=20.0,
            shift=7.0,
        )
        by_recursion = annealed_moments(levels, steps=steps, step_size=step_size, mean=7.0, std=20.0)
        assert [mean, variance] == pytest.approx(by_recursion, rel=1e-9)
        assert mean == pytest.approx(MEAN, abs=0.01)
        errors.append(variance / expected - 1.0)
    assert rates(errors) == pytest.approx([1.0, 1.0], abs=0.25)


@pytest.mark.slow
def test_annealed_langevin_draws_a_mixture_with_its_weights() -> None:
    """From the wrong mode alone: only the large levels can move chains between modes."""
    law = Mixture(torch.ones_like, lambda t: t)
    levels = geometric(60, first=10.0, last=0.02)
    x = annealed_langevin(
        law,
        torch.full((5000, 1), 3.0, dtype=torch.float64),
        levels,
        steps_per_level=20,
        step_size=0.1,
        generator=seeded(),
    )
    assert law.distance(x) < 1.95 / math.sqrt(5000) + 0.02


def test_annealed_langevin_asks_the_network_at_every_level_and_once_more() -> None:
    asked = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return x

    levels = geometric(3, first=1.0, last=0.1)
    annealed_langevin(denoise, start(2), levels, steps_per_level=2, step_size=0.1, generator=seeded())
    first, second, third = levels.t.tolist()
    assert asked == [first, first, second, second, third, third, third]


@pytest.mark.parametrize("wrong", [{"steps_per_level": 0}, {"step_size": 0.0}, {"step_size": 4.0}])
def test_dynamics_that_stand_still_or_run_away_are_refused(wrong: dict[str, float]) -> None:
    how = {"steps_per_level": 1, "step_size": 0.1, **wrong}
    with pytest.raises(ValueError, match="at least 1 step"):
        annealed_langevin(crooked, start(2), geometric(2, first=1.0, last=0.1), **how, generator=seeded())


# All of them


@EVERY
def test_the_probability_flow_of_a_mixture_ends_at_the_mixture(sde: DiffusionSDE) -> None:
    law = Mixture(sde.alpha, sde.sigma)
    x = dpm_solver_pp(law, sde.prior_std * start(10_000), sde.log_snr_levels(100, t_min=1e-3))
    assert law.distance(x) < 1.95 / math.sqrt(10_000) + 0.01


def test_samples_depend_on_the_given_generator_alone() -> None:
    levels, x = VP.even_levels(5, t_min=1e-2), start(3, 2)
    for draw in (
        lambda seed: euler_maruyama(crooked, x, levels, sde=VP, generator=seeded(seed)),
        lambda seed: predictor_corrector(crooked, x, levels, corrector_steps=1, snr=0.1, generator=seeded(seed)),
        lambda seed: annealed_langevin(crooked, x, levels, steps_per_level=2, step_size=0.1, generator=seeded(seed)),
    ):
        before = torch.get_rng_state()
        first = draw(0)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first, draw(0))
        assert not torch.equal(first, draw(1))


def test_a_single_level_is_left_by_its_denoised_estimate() -> None:
    levels, x = VP.even_levels(1, t_min=1e-2), start(4, 3)
    expected = crooked(x, torch.ones(4))
    assert torch.equal(euler_maruyama(crooked, x, levels, sde=VP, generator=seeded()), expected)
    assert torch.equal(
        predictor_corrector(crooked, x, levels, corrector_steps=0, snr=0.1, generator=seeded()), expected
    )
    assert torch.equal(dpm_solver_pp(crooked, x, levels), expected)
