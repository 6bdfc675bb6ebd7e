import math

import pytest
import torch
from scipy import stats

from genbench.prob import gaussian

MU = torch.tensor([-1.5, 0.0, 0.3, 2.0], dtype=torch.float64)
LOG_SIGMA = torch.tensor([-2.0, 0.0, 0.7, -0.5], dtype=torch.float64)
X = torch.tensor([-1.4, 1.0, -3.0, 2.5], dtype=torch.float64)


def test_log_density_is_that_of_scipy():
    expected = stats.norm.logpdf(X.numpy(), loc=MU.numpy(), scale=LOG_SIGMA.exp().numpy())
    torch.testing.assert_close(gaussian.log_prob(X, MU, LOG_SIGMA), torch.from_numpy(expected), rtol=1e-12, atol=0)


def test_standard_log_density_is_that_of_scipy():
    expected = torch.from_numpy(stats.norm.logpdf(X.numpy()))
    torch.testing.assert_close(gaussian.standard_log_prob(X), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("i", range(4))
def test_divergence_is_the_integral_of_q_log_q_over_p(i):
    j = 3 - i
    x = MU[i] + LOG_SIGMA[i].exp() * torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    log_q = gaussian.log_prob(x, MU[i], LOG_SIGMA[i])
    integrand = log_q.exp() * (log_q - gaussian.log_prob(x, MU[j], LOG_SIGMA[j]))
    expected = torch.trapezoid(integrand, x)
    torch.testing.assert_close(gaussian.kl(MU[i], LOG_SIGMA[i], MU[j], LOG_SIGMA[j]), expected, rtol=1e-9, atol=1e-9)


def test_divergence_is_the_mean_of_the_log_ratio_over_draws():
    generator = torch.Generator().manual_seed(0)
    mu, log_sigma = MU.expand(200_000, 4), LOG_SIGMA.expand(200_000, 4)
    z = gaussian.reparameterised(mu, log_sigma, generator=generator)
    log_ratio = (gaussian.log_prob(z, MU, LOG_SIGMA) - gaussian.standard_log_prob(z)).sum(1)
    standard_error = float(log_ratio.std()) / math.sqrt(len(z))
    assert float(gaussian.kl_to_standard(MU, LOG_SIGMA).sum()) == pytest.approx(
        float(log_ratio.mean()), abs=4 * standard_error
    )


def test_divergence_to_the_standard_gaussian_is_the_general_one_at_zero_and_one():
    zero = torch.zeros_like(MU)
    general = gaussian.kl(MU, LOG_SIGMA, zero, zero)
    torch.testing.assert_close(gaussian.kl_to_standard(MU, LOG_SIGMA), general, rtol=1e-14, atol=1e-14)


def test_divergence_of_a_gaussian_from_itself_is_exactly_zero():
    assert gaussian.kl(MU, LOG_SIGMA, MU, LOG_SIGMA).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_gradient_of_a_draw_is_one_to_the_mean_and_the_noise_to_log_sigma():
    mu, log_sigma = MU.clone().requires_grad_(), LOG_SIGMA.clone().requires_grad_()
    z = gaussian.reparameterised(mu, log_sigma, generator=torch.Generator().manual_seed(1))
    z.sum().backward()
    assert mu.grad.tolist() == [1.0, 1.0, 1.0, 1.0]
    torch.testing.assert_close(log_sigma.grad, (z - mu).detach(), rtol=1e-12, atol=1e-14)


def test_draws_use_the_given_generator_alone():
    before = torch.get_rng_state()
    first = gaussian.reparameterised(MU, LOG_SIGMA, generator=torch.Generator().manual_seed(3))
    second = gaussian.reparameterised(MU, LOG_SIGMA, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
