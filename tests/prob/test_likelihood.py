"""Units of likelihoods, against laws whose bits per dimension are known."""

import math

import pytest
import torch
from torch.distributions import Normal

from genbench.prob.likelihood import bits_per_dim, density_offset, importance_weighted, scaled_density_to_nats


def _normal(mean, std):
    """The normal law in double precision: plain numbers would become single."""
    return Normal(*(torch.as_tensor(part, dtype=torch.float64) for part in (mean, std)))


@pytest.mark.parametrize(("low", "high", "offset"), [(0.0, 1.0, 8.0), (-1.0, 1.0, 7.0), (0.0, 256.0, 0.0)])
def test_uniform_noise_costs_exactly_eight_bits_on_any_scale(low, high, offset):
    density = torch.full((4,), -3072 * math.log(high - low), dtype=torch.float64)
    nats = scaled_density_to_nats(density, 3072, low=low, high=high, levels=256)
    assert bits_per_dim(nats, 3072).tolist() == pytest.approx([8.0] * 4, rel=1e-15)
    assert density_offset(low=low, high=high, levels=256) == offset


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 0.5), (3.0, 10.0)])
def test_the_scale_of_the_data_leaves_bits_per_dimension_unchanged(low, high):
    """A Gaussian on [0, 1), and the same pushed to [low, high)."""
    y = torch.rand(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = _normal(0.4, 0.3).log_prob(y).sum(1)
    scaled = low + (high - low) * y
    second = _normal(low + (high - low) * 0.4, (high - low) * 0.3).log_prob(scaled).sum(1)
    found = [
        scaled_density_to_nats(density, 12, low=a, high=b, levels=256)
        for density, a, b in ((first, 0.0, 1.0), (second, low, high))
    ]
    assert found[1].tolist() == pytest.approx(found[0].tolist(), rel=1e-13)


def test_gaussian_data_cost_their_differential_entropy_plus_the_offset():
    """Half log2(2 pi e sigma^2) bits of a density on [0, 1), and 8 for the bins."""
    sigma = 0.05
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = 0.5 + sigma * noise
    nats = scaled_density_to_nats(_normal(0.5, sigma).log_prob(y).sum(1), 1, low=0.0, high=1.0, levels=256)
    expected = 0.5 * math.log2(2.0 * math.pi * math.e * sigma**2) + 8.0
    assert float(bits_per_dim(nats, 1).mean()) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("low", "high", "levels"), [(1.0, 1.0, 256), (1.0, 0.0, 256), (0.0, 1.0, 1)])
def test_a_range_that_holds_no_levels_is_refused(low, high, levels):
    with pytest.raises(ValueError, match="expected high above low and 2 levels or more"):
        density_offset(low=low, high=high, levels=levels)


def test_no_dimension_is_refused():
    with pytest.raises(ValueError, match="at least 1 dimension, found 0"):
        bits_per_dim(torch.zeros(3), 0)


def _log_weights(num_draws, *, posterior_scale, seed=0):
    """z ~ N(0, 1), x | z ~ N(2 z + 1, 0.5^2), so x ~ N(1, 4.25); q is the posterior with its deviation scaled."""
    x = torch.tensor([-3.0, 0.0, 1.0, 4.0], dtype=torch.float64)
    variance = 1.0 / (1.0 + 4.0 / 0.25)
    q = _normal(variance * 2.0 * (x - 1.0) / 0.25, posterior_scale * variance**0.5)
    noise = torch.randn(num_draws, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = q.mean + q.stddev * noise
    weights = _normal(0.0, 1.0).log_prob(z) + _normal(2.0 * z + 1.0, 0.5).log_prob(x) - q.log_prob(z)
    return weights, _normal(1.0, 4.25**0.5).log_prob(x)


@pytest.mark.parametrize("num_draws", [1, 7])
def test_the_exact_posterior_gives_the_exact_likelihood_from_any_number_of_draws(num_draws):
    weights, exact = _log_weights(num_draws, posterior_scale=1.0)
    assert importance_weighted(weights).tolist() == pytest.approx(exact.tolist(), rel=1e-12)


def test_one_draw_is_short_by_the_divergence_from_the_posterior():
    """KL(N(0, s^2) || N(0, 1)) = (s^2 - 1) / 2 - log s."""
    weights, exact = _log_weights(200_000, posterior_scale=1.5)
    gap = exact - importance_weighted(weights.reshape(1, -1)).reshape(200_000, 4).mean(0)
    assert gap.tolist() == pytest.approx([(1.5**2 - 1.0) / 2.0 - math.log(1.5)] * 4, abs=0.01)


def test_more_draws_tighten_the_bound_towards_the_likelihood():
    weights, exact = _log_weights(51_200, posterior_scale=1.5)
    gaps = [
        float((exact - importance_weighted(weights.reshape(k, -1)).reshape(-1, 4).mean(0)).mean())
        for k in (1, 4, 32, 512)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == pytest.approx(0.0, abs=0.005)


def test_weights_far_from_one_neither_overflow_nor_vanish():
    far = torch.tensor([[-5000.0], [-5000.0]])
    assert importance_weighted(far).item() == -5000.0
    with pytest.raises(ValueError, match="at least 1 draw"):
        importance_weighted(torch.empty(0, 3))
    with pytest.raises(ValueError, match=r"expected \(K, B\)"):
        importance_weighted(torch.zeros(3))


def test_variational_dequantisation_by_the_posterior_of_the_noise_gives_the_probability_of_the_integer():
    """q(u | x) = p(x + u) / P(x): the weight is P(x) whatever u is drawn."""
    law, x = _normal(3.0, 1.5), torch.arange(0.0, 8.0, dtype=torch.float64)
    exact = torch.log(law.cdf(x + 1.0) - law.cdf(x))
    u = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = law.log_prob(x + u) - (law.log_prob(x + u) - exact)
    assert importance_weighted(weights).tolist() == pytest.approx(exact.tolist(), rel=1e-12)


def test_uniform_dequantisation_lies_below_the_probability_of_the_integer():
    law, x = _normal(3.0, 0.4), torch.arange(0.0, 7.0, dtype=torch.float64)
    exact = torch.log(law.cdf(x + 1.0) - law.cdf(x))
    u = torch.rand(20_000, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = importance_weighted(law.log_prob(x + u).reshape(1, -1)).reshape(-1, 7).mean(0)
    assert (bound < exact - 0.05).all()
    many = importance_weighted(law.log_prob(x + u))
    assert many[2:4].tolist() == pytest.approx(exact[2:4].tolist(), abs=0.02)
