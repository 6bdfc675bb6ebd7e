"""Bounds over layers of codes, against a linear Gaussian model of two layers whose evidence and posterior are known."""

import math

import pytest
import torch
from torch import Generator, Tensor

from genbench.prob import gaussian
from genbench.prob.hierarchy import Layer, divergence, evidence_bound, log_ratio, log_weight, precision_weighted
from genbench.prob.likelihood import importance_weighted

A, S1, B, S0 = 0.8, 0.5, 1.5, 0.4
"""z_2 ~ N(0, 1), z_1 | z_2 ~ N(A z_2, S1^2), x | z_1 ~ N(B z_1, S0^2)."""
X = torch.linspace(-2.0, 2.5, 6, dtype=torch.float64)


def _evidence(x: Tensor) -> Tensor:
    variance = B**2 * (A**2 + S1**2) + S0**2
    return gaussian.log_prob(x, torch.zeros_like(x), torch.full_like(x, 0.5 * math.log(variance)))


def _log(sigma: float, like: Tensor) -> Tensor:
    return torch.full_like(like, math.log(sigma))


def _draw(x: Tensor, *, generator: Generator, shift: float = 0.0, widen: float = 0.0) -> tuple[Tensor, list[Layer]]:
    """Log p(x|z) and both layers, drawn from the exact posterior from the top down, or one that is off."""
    x = x.unsqueeze(1)
    variance_x_2 = B**2 * S1**2 + S0**2  # of x given z_2
    precision_2 = 1.0 + (A * B) ** 2 / variance_x_2
    mu_2, log_sigma_2 = A * B * x / variance_x_2 / precision_2 + shift, _log(precision_2**-0.5, x) + widen
    z_2 = gaussian.reparameterised(mu_2, log_sigma_2, generator=generator)
    prior_1 = A * z_2, _log(S1, x)
    mu_1, log_sigma_1 = precision_weighted(x / B, _log(S0 / B, x), *prior_1)
    mu_1, log_sigma_1 = mu_1 - shift, log_sigma_1 + widen
    z_1 = gaussian.reparameterised(mu_1, log_sigma_1, generator=generator)
    zero = torch.zeros_like(x)
    layers = [Layer(z_2, mu_2, log_sigma_2, zero, zero), Layer(z_1, mu_1, log_sigma_1, *prior_1)]
    return gaussian.log_prob(x, B * z_1, _log(S0, x)).squeeze(1), layers


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _layer(*, num: int = 3, shape: tuple[int, ...] = (2, 4, 4)) -> Layer:
    parts = torch.randn(5, num, *shape, generator=_generator(), dtype=torch.float64)
    return Layer(*parts)


def test_the_exact_posterior_of_two_layers_weighs_every_draw_with_the_evidence():
    """The posterior is made by `precision_weighted`: were that wrong, no weight would be the evidence."""
    log_p, layers = _draw(X, generator=_generator())
    torch.testing.assert_close(log_weight(log_p, layers), _evidence(X), rtol=0, atol=1e-12)


def test_the_bound_of_the_exact_posterior_is_the_evidence_in_the_mean():
    x = X.repeat(20_000)
    bounds = evidence_bound(*_draw(x, generator=_generator())).view(20_000, 6)
    spread = bounds.std(0) / math.sqrt(20_000)
    assert bool(((bounds.mean(0) - _evidence(X)).abs() <= 4 * spread).all())


def test_the_analytic_bound_and_the_weight_of_one_draw_agree_in_the_mean_and_lie_below_the_evidence():
    x = X.repeat(20_000)
    log_p, layers = _draw(x, generator=_generator(), shift=0.2, widen=0.3)
    analytic, sampled = evidence_bound(log_p, layers), log_weight(log_p, layers)
    gap = analytic - sampled
    assert abs(gap.mean().item()) <= 4 * gap.std().item() / math.sqrt(len(x))
    below = _evidence(x) - analytic
    assert below.mean().item() > 8 * below.std().item() / math.sqrt(len(x))


def test_more_draws_tighten_the_bound_and_never_pass_the_evidence():
    x = X.repeat(20_000)
    generator = _generator()
    weights = torch.stack([log_weight(*_draw(x, generator=generator, shift=0.2, widen=0.3)) for _ in range(25)])
    gaps = [importance_weighted(weights[:K]) - _evidence(x) for K in (1, 5, 25)]
    means = [gap.mean().item() for gap in gaps]
    spread = max(gap.std().item() for gap in gaps) / math.sqrt(len(x))
    assert means[0] < means[1] - 4 * spread < means[2] - 8 * spread < -8 * spread
    ratio = gaps[2].exp()  # of an unbiased estimate to the evidence: 1 in the mean
    assert ratio.mean().item() == pytest.approx(1.0, abs=4 * ratio.std().item() / math.sqrt(len(x)))


def test_the_bound_is_the_likelihood_less_the_divergence_of_every_layer():
    layers = [_layer(), _layer(shape=(5,)), _layer(shape=(1, 1, 1))]
    log_p = torch.tensor([-1.0, 2.0, 0.5], dtype=torch.float64)
    expected = log_p.clone()
    for layer in layers:
        expected -= gaussian.kl(*layer[1:]).sum(tuple(range(1, layer.z.ndim)))
    torch.testing.assert_close(evidence_bound(log_p, layers), expected)
    torch.testing.assert_close(evidence_bound(log_p, []), log_p)
    torch.testing.assert_close(log_weight(log_p, iter(layers)), log_p + sum(map(log_ratio, layers)))


def test_the_divergence_is_that_of_torch_at_least_zero_and_zero_for_equal_gaussians():
    layer = _layer(num=50)
    q = torch.distributions.Normal(layer.mu_q, layer.log_sigma_q.exp())
    p = torch.distributions.Normal(layer.mu_p, layer.log_sigma_p.exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(divergence(layer), expected)
    assert bool((divergence(layer) >= 0).all())
    same = layer._replace(mu_q=layer.mu_p, log_sigma_q=layer.log_sigma_p)
    assert divergence(same).tolist() == [0.0] * 50
    assert log_ratio(same).tolist() == [0.0] * 50


def test_the_divergence_is_minus_the_log_ratio_in_the_mean_over_draws():
    layer = Layer(*(part.expand(100_000, 3) for part in _layer(num=1, shape=(3,))))
    z = gaussian.reparameterised(layer.mu_q, layer.log_sigma_q, generator=_generator(1))
    ratios = log_ratio(layer._replace(z=z))
    spread = ratios.std().item() / math.sqrt(len(ratios))
    assert divergence(layer)[0].item() == pytest.approx(-ratios.mean().item(), abs=4 * spread)


def test_a_prior_that_is_one_for_all_counts_for_every_dimension():
    layer = _layer(shape=(4,))
    shared = layer._replace(
        mu_q=layer.mu_q[:, :1],
        log_sigma_q=layer.log_sigma_q[:1, :1],
        mu_p=layer.mu_p[0, 0],
        log_sigma_p=layer.mu_p[0, 1],
    )
    full = Layer(*(part.expand(3, 4) for part in shared))
    torch.testing.assert_close(divergence(shared), divergence(full))
    torch.testing.assert_close(log_ratio(shared), log_ratio(full))


def test_the_precision_weighted_gaussian_is_the_normalised_product():
    mu_a, log_sigma_a, mu_b, log_sigma_b = torch.randn(4, 20, generator=_generator(), dtype=torch.float64)
    mu, log_sigma = precision_weighted(mu_a, log_sigma_a, mu_b, log_sigma_b)
    precision = torch.exp(-2 * log_sigma_a) + torch.exp(-2 * log_sigma_b)
    torch.testing.assert_close(torch.exp(-2 * log_sigma), precision)
    weighted = mu_a * torch.exp(-2 * log_sigma_a) + mu_b * torch.exp(-2 * log_sigma_b)
    torch.testing.assert_close(mu, weighted / precision)
    grid = torch.linspace(-3, 3, 11, dtype=torch.float64).unsqueeze(1)
    product = gaussian.log_prob(grid, mu_a, log_sigma_a) + gaussian.log_prob(grid, mu_b, log_sigma_b)
    constant = product - gaussian.log_prob(grid, mu, log_sigma)  # of the point: the product is the same Gaussian
    torch.testing.assert_close(constant, constant[:1].expand(11, 20))


def test_the_product_is_symmetric_and_a_gaussian_of_infinite_width_says_nothing():
    mu_a, log_sigma_a, mu_b, log_sigma_b = torch.randn(4, 20, generator=_generator(), dtype=torch.float64)
    one, other = (
        precision_weighted(mu_a, log_sigma_a, mu_b, log_sigma_b),
        precision_weighted(mu_b, log_sigma_b, mu_a, log_sigma_a),
    )
    torch.testing.assert_close(one, other)
    infinite = torch.full_like(mu_a, torch.inf)
    assert all(map(torch.equal, precision_weighted(mu_a, infinite, mu_b, log_sigma_b)[:1], (mu_b,)))
    torch.testing.assert_close(precision_weighted(mu_a, infinite, mu_b, log_sigma_b)[1], log_sigma_b)


def test_the_product_is_finite_with_finite_gradients_at_extreme_scales():
    log_sigmas = torch.tensor([[-60.0, 60.0], [60.0, -60.0], [-40.0, -40.0]], requires_grad=True)
    mu, log_sigma = precision_weighted(torch.ones(3), log_sigmas[:, 0], torch.zeros(3), log_sigmas[:, 1])
    (mu.sum() + log_sigma.sum()).backward()
    assert mu.tolist() == [1.0, 0.0, 0.5]
    torch.testing.assert_close(log_sigma.detach(), torch.tensor([-60.0, -60.0, -40.0 - 0.5 * math.log(2)]))
    assert bool(log_sigmas.grad.isfinite().all())
