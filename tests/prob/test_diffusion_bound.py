import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from genbench.prob import diffusion_bound, gaussian
from genbench.prob.noise_schedule import NoiseSchedule, ReverseSteps, cosine_schedule, linear_schedule

STD = 0.5  # of the Gaussian data below
SCHEDULES = [linear_schedule(1000), cosine_schedule(1000)]


def posterior_variance_of_data(schedule: NoiseSchedule) -> Tensor:
    """Var(x_0 | x_t) for x_0 ~ N(0, STD^2), t = 1 .. T: the error of the best denoiser."""
    alpha, sigma = schedule.alpha[1:], schedule.sigma[1:]
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


def expected_bound(schedule: NoiseSchedule, variance: Tensor) -> Tensor:
    """Expected variational bound of one Gaussian dimension under the best denoiser, in nats."""
    of_error, of_dims = diffusion_bound.step_coefficients(schedule.steps, variance)
    error = posterior_variance_of_data(schedule)
    steps = (of_error * error + of_dims)[1:].sum()
    prior = diffusion_bound.prior_term(torch.tensor(STD**2), 1, alpha=schedule.alpha[-1], sigma=schedule.sigma[-1])
    decoder = 0.5 * (2 * math.pi * variance[0]).log() + 0.5 * error[0] / variance[0]
    return steps + prior + decoder


def true_variances(schedule: NoiseSchedule) -> Tensor:
    """Var(x_{t-1} | x_t): the posterior's own plus what the data's uncertainty adds."""
    return schedule.steps.beta_tilde + schedule.steps.data**2 * posterior_variance_of_data(schedule)


def negative_log_likelihood() -> float:
    return 0.5 * math.log(2 * math.pi * math.e * STD**2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_of_the_perfect_model_is_the_likelihood_plus_the_mismatch_of_the_prior(
    schedule: NoiseSchedule,
) -> None:
    std_T = (schedule.alpha[-1] ** 2 * STD**2 + schedule.sigma[-1] ** 2).sqrt()
    mismatch = gaussian.kl_to_standard(torch.zeros((), dtype=torch.float64), std_T.log())
    gap = expected_bound(schedule, true_variances(schedule)) - negative_log_likelihood() - mismatch
    assert abs(gap.item()) < 1e-10


def test_fixed_variances_cost_likelihood_and_beta_tilde_far_more() -> None:
    schedule = linear_schedule(1000)
    beta, beta_tilde = schedule.steps.beta, schedule.steps.beta_tilde.clone()
    beta_tilde[0] = beta_tilde[1]  # beta_tilde_1 is 0: no decoder has it
    cost = expected_bound(schedule, beta).item() - negative_log_likelihood()
    cost_tilde = expected_bound(schedule, beta_tilde).item() - negative_log_likelihood()
    assert 0.0 < cost < 0.01
    assert 0.1 < cost_tilde < 1.0


def test_a_worse_denoiser_only_raises_the_bound() -> None:
    of_error, of_dims = diffusion_bound.step_coefficients(SCHEDULES[0].steps, SCHEDULES[0].steps.beta)
    assert bool((of_error > 0).all())
    assert bool((of_dims[1:] >= 0).all())


def test_step_terms_are_divergences_of_the_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    steps, t = SCHEDULES[0].steps, 300
    x_t, x_0, guess = torch.randn(3, 7, dtype=torch.float64, generator=generator)
    mean, model_mean = (steps.noisy[t] * x_t + steps.data[t] * data for data in (x_0, guess))
    expected = gaussian.kl(mean, 0.5 * steps.beta_tilde[t].log(), model_mean, 0.5 * steps.beta[t].log()).sum()
    of_error, of_dims = diffusion_bound.step_coefficients(steps, steps.beta)
    torch.testing.assert_close(of_error[t] * (x_0 - guess).square().sum() + 7 * of_dims[t], expected)


def test_coefficients_take_steps_of_any_number() -> None:
    steps = SCHEDULES[0].steps
    some = ReverseSteps(steps.noisy[5:9], steps.data[5:9], steps.beta[5:9], steps.beta_tilde[5:9])
    ours = diffusion_bound.step_coefficients(some, some.beta)
    for part, whole in zip(ours, diffusion_bound.step_coefficients(steps, steps.beta), strict=True):
        torch.testing.assert_close(part, whole[5:9])


def test_the_prior_term_is_the_divergence_from_the_standard_normal() -> None:
    x_0 = torch.linspace(-1, 1, 5, dtype=torch.float64)
    alpha, sigma = torch.tensor([0.3, 0.8], dtype=torch.float64)
    expected = gaussian.kl_to_standard(alpha * x_0, sigma.log()).sum()
    torch.testing.assert_close(diffusion_bound.prior_term(x_0.square().sum(), 5, alpha=alpha, sigma=sigma), expected)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.3, 10.0])
@pytest.mark.parametrize("mean", [-1.0, 0.123, 0.99, 4.0])
def test_the_discretised_gaussian_is_a_pmf(levels: int, sigma: float, mean: float) -> None:
    x = torch.arange(levels)
    mean_of_each = torch.full((levels,), mean, dtype=torch.float64)
    log_prob = diffusion_bound.discretised_gaussian_log_prob(x, mean_of_each, sigma, levels=levels)
    assert bool((log_prob <= 0).all())
    torch.testing.assert_close(log_prob.exp().sum().item(), 1.0, rtol=0.0, atol=1e-12)


def test_the_discretised_gaussian_is_symmetric_and_agrees_with_scipy_in_the_body() -> None:
    x, mean = torch.arange(256), torch.full((256,), 0.2, dtype=torch.float64)
    log_prob = diffusion_bound.discretised_gaussian_log_prob(x, mean, 0.1, levels=256)
    mirrored = diffusion_bound.discretised_gaussian_log_prob(255 - x, -mean, 0.1, levels=256)
    torch.testing.assert_close(log_prob, mirrored, rtol=1e-9, atol=1e-9)
    edges = (np.arange(257) * 2 - 1) / 255 - 1
    expected = np.log(np.diff(stats.norm.cdf(edges, loc=0.2, scale=0.1)))[100:200]
    np.testing.assert_allclose(log_prob[100:200].numpy(), expected, rtol=1e-9)


def test_far_levels_keep_a_finite_log_probability() -> None:
    x, mean = torch.tensor([0, 100, 255]), torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    log_prob = diffusion_bound.discretised_gaussian_log_prob(x, mean, 0.005, levels=256)
    assert bool(torch.isfinite(log_prob).all())
    assert log_prob[0] < -10_000


@pytest.mark.parametrize("number", [1, 2, 20, 500, 998, 999])
def test_strata_cover_every_term_once_so_that_the_estimate_has_no_bias(number: int) -> None:
    cuts = diffusion_bound.strata(2, 1001, number)
    covered = [t for start, end in cuts for t in range(start, end)]
    assert covered == list(range(2, 1001))
    assert len(cuts) == number
    assert min(end - start for start, end in cuts) >= 1


def test_strata_are_narrow_where_the_terms_are_large() -> None:
    widths = [end - start for start, end in diffusion_bound.strata(2, 1001, 20)]
    assert widths[0] < 5
    assert widths[-1] > 90


@pytest.mark.parametrize("number", [0, 10])
def test_an_impossible_number_of_strata_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="do not split"):
        diffusion_bound.strata(1, 10, number)


def test_the_divergence_of_a_step_is_that_of_two_gaussians() -> None:
    gap, ours, true = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normals = [
        torch.distributions.Normal(mean, torch.exp(0.5 * v)) for mean, v in ((torch.zeros(4, 5), true), (gap, ours))
    ]
    expected = torch.distributions.kl_divergence(*normals)
    torch.testing.assert_close(diffusion_bound.step_divergence(gap, ours, true), expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_best_learned_variance_is_a_share_within_the_two_bounds_and_beats_both(schedule: NoiseSchedule) -> None:
    """For Gaussian data the best one is beta_tilde + data^2 Var(x_0 | x_t), between the two where STD is at most 1."""
    steps = schedule.steps
    rows = slice(1, None)  # the step from t = 1 has its own term
    log_beta, log_tilde = steps.beta[rows].log(), steps.beta_tilde[rows].log()
    error = steps.data[rows].square() * posterior_variance_of_data(schedule)[rows]
    best = (steps.beta_tilde[rows] + error).log()
    share = (best - log_tilde) / (log_beta - log_tilde)
    assert bool(((share >= 0) & (share <= 1)).all())
    torch.testing.assert_close(diffusion_bound.learned_log_variance(share, log_beta, log_tilde), best)

    def expected(log_variance: Tensor) -> Tensor:  # over the gap, whose mean square is `error`
        return diffusion_bound.step_divergence(error.sqrt(), log_variance, log_tilde)

    assert bool((expected(best) <= torch.minimum(expected(log_beta), expected(log_tilde)) + 1e-12).all())
    assert expected(best).sum() < expected(log_tilde).sum() - 0.1
