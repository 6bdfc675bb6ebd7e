import math

import pytest
import torch
from scipy import stats

from genbench.prob import discretized_logistic as logistic

LOG_SCALES = [-7.0, -5.0, -3.0, -1.0, 0.0, 1.0]


@pytest.mark.parametrize("levels", [256, 17, 2])
@pytest.mark.parametrize("log_scale", LOG_SCALES)
def test_probabilities_of_all_levels_sum_to_one(levels, log_scale):
    x = torch.arange(levels)
    mu = torch.tensor([-1.7, -1.0, -0.503, 0.0, 0.9921, 1.0, 3.0]).unsqueeze(1)
    single = logistic.log_prob(x, mu, torch.tensor(log_scale), levels=levels)
    torch.testing.assert_close(single.double().exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=2e-6)
    double = logistic.log_prob(x, mu.double(), torch.tensor(log_scale, dtype=torch.float64), levels=levels)
    torch.testing.assert_close(double.exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("levels", [256, 17, 2])
@pytest.mark.parametrize("log_scale", [-5.0, -1.0, 1.0])
def test_probability_of_a_level_is_the_difference_of_the_cumulatives_at_its_edges(levels, log_scale):
    mu = 0.37
    x = torch.arange(levels)
    edges = (2 * torch.arange(levels + 1, dtype=torch.float64) - 1) / (levels - 1) - 1
    edges[0], edges[-1] = -math.inf, math.inf
    cumulative = stats.logistic.cdf(edges.numpy(), loc=mu, scale=math.exp(log_scale))
    found = logistic.log_prob(
        x, torch.tensor(mu, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64), levels=levels
    )
    torch.testing.assert_close(found.exp(), torch.from_numpy(cumulative).diff(), rtol=0, atol=1e-14)


def test_log_probability_far_in_the_tail_is_linear_and_has_a_gradient():
    mu = torch.tensor(-1.0, requires_grad=True)
    found = logistic.log_prob(torch.tensor(200), mu, torch.tensor(-7.0), levels=256)
    found.backward()
    inverse_scale = math.exp(7.0)
    distance = 200 * 2 / 255 - 1 / 255  # from mu to the near edge of the bin
    width = math.log(-math.expm1(-2 / 255 * inverse_scale))
    assert found.item() == pytest.approx(-distance * inverse_scale + width, rel=1e-5)
    assert float(mu.grad) == pytest.approx(inverse_scale, rel=1e-4)


@pytest.mark.parametrize("levels", [256, 17, 2])
@pytest.mark.parametrize("log_scale", LOG_SCALES)
def test_gradients_are_those_of_finite_differences(levels, log_scale):
    x = torch.tensor([0, 1, levels // 3, levels // 2, levels - 2, levels - 1])
    mu = torch.tensor([[-1.7], [-1.0], [0.013], [0.9921], [3.0]], dtype=torch.float64, requires_grad=True)
    log_scales = torch.full((5, 1), log_scale, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *at: logistic.log_prob(x, *at, levels=levels), (mu, log_scales))


@pytest.mark.parametrize("levels", [17, 2])
@pytest.mark.parametrize(("mu", "log_scale"), [(0.2, -2.0), (-1.1, -1.0), (0.95, -4.0), (0.0, 0.5)])
def test_draws_follow_the_probabilities(levels, mu, log_scale):
    generator = torch.Generator().manual_seed(0)
    draws = logistic.sample(
        torch.full((50_000,), mu), torch.full((50_000,), log_scale), levels=levels, generator=generator
    )
    expected = logistic.log_prob(torch.arange(levels), torch.tensor(mu), torch.tensor(log_scale), levels=levels).exp()
    found = torch.bincount(draws.long(), minlength=levels) / len(draws)
    spread = (expected * (1 - expected) / len(draws)).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread + 1e-5).all())


def test_draws_are_integers_inside_the_range_even_at_extreme_locations():
    mu = torch.tensor([-50.0, 50.0]).repeat(500)
    draws = logistic.sample(mu, torch.zeros(1000), levels=17, generator=torch.Generator().manual_seed(0))
    assert draws.dtype == torch.uint8
    assert set(draws[::2].tolist()) == {0}
    assert set(draws[1::2].tolist()) == {16}


def _mixture(seed: int, num_mixtures: int, num_channels: int, num_pixels: int = 1) -> logistic.Mixture:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_pixels, num_mixtures, num_channels, 1, 1)
    mu, log_scale = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    return logistic.Mixture(torch.randn((*shape[:2], 1, 1), generator=generator), mu, log_scale)


def test_probabilities_of_all_pixels_of_a_mixture_sum_to_one():
    levels = 5
    pixels = torch.cartesian_prod(*[torch.arange(levels)] * 3)[:, :, None, None]  # (125, 3, 1, 1)
    mixture = logistic.Mixture(*(value.expand(125, *value.shape[1:]) for value in _mixture(0, 4, 3)))
    total = logistic.mixture_log_prob(pixels, mixture, levels=levels).double().exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-6)


def test_a_mixture_sums_to_one_over_256_levels_and_has_the_gradient_of_finite_differences():
    mixture = logistic.Mixture(*(value.double() for value in _mixture(5, 4, 1)))
    everywhere = logistic.Mixture(*(value.expand(256, *value.shape[1:]) for value in mixture))
    every = torch.arange(256).view(-1, 1, 1, 1)
    total = logistic.mixture_log_prob(every, everywhere, levels=256).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-12)
    pixel = torch.tensor([0, 90, 255]).view(1, 3, 1, 1)
    values = [value.double().requires_grad_() for value in _mixture(6, 4, 3)]
    assert torch.autograd.gradcheck(
        lambda *at: logistic.mixture_log_prob(pixel, logistic.Mixture(*at), levels=256), values
    )


def test_a_mixture_of_one_component_is_the_product_over_channels():
    mixture = _mixture(1, 1, 3, num_pixels=7)
    x = torch.randint(0, 17, (7, 3, 1, 1), generator=torch.Generator().manual_seed(2))
    alone = logistic.log_prob(x, mixture.mu[:, 0], mixture.log_scale[:, 0], levels=17).sum(1)
    torch.testing.assert_close(logistic.mixture_log_prob(x, mixture, levels=17), alone)


def test_draws_of_a_mixture_follow_the_joint_probabilities_of_their_channels():
    levels, count = 3, 60_000
    mixture = logistic.Mixture(*(value.expand(count, *value.shape[1:]) for value in _mixture(3, 3, 2)))
    draws = logistic.mixture_sample(mixture, levels=levels, generator=torch.Generator().manual_seed(4))
    pixels = torch.cartesian_prod(torch.arange(levels), torch.arange(levels))[:, :, None, None]
    first = logistic.Mixture(*(value[: levels**2] for value in mixture))
    expected = logistic.mixture_log_prob(pixels, first, levels=levels).flatten().exp()
    index = draws[:, 0, 0, 0].long() * levels + draws[:, 1, 0, 0].long()
    found = torch.bincount(index, minlength=levels**2) / count
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread).all())


def test_mean_of_a_mixture_is_the_weighted_mean_of_its_locations():
    mixture = logistic.Mixture(
        torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1),
        torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1, 1),
        torch.zeros(1, 2, 1, 1, 1),
    )
    assert logistic.mixture_mean(mixture, levels=101).item() == 75


def test_parameters_are_read_component_by_component():
    assert logistic.num_parameters(2, 3) == 8
    values = torch.arange(8.0).view(1, 8, 1, 1)  # two components of a weight and 3 locations
    log_scale = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]])
    mixture = logistic.split_mixture(values, log_scale / logistic.SCALE_GAIN)
    assert mixture.logits.flatten().tolist() == [0, 4]
    assert mixture.mu[0, 1].flatten().tolist() == [5, 6, 7]
    torch.testing.assert_close(mixture.log_scale[0, :, :, 0, 0], log_scale)


def test_scales_start_wide_and_each_component_narrower_than_the_last():
    mixture = logistic.split_mixture(torch.zeros(1, 9, 1, 1), logistic.initial_scale(3, 2))
    torch.testing.assert_close(mixture.log_scale.flatten(), torch.tensor([-1.0, -1.0, -2.0, -2.0, -3.0, -3.0]))


def test_log_scales_have_a_floor():
    mixture = logistic.split_mixture(torch.zeros(1, 2, 1, 1), torch.tensor([[-30.0]]))
    assert mixture.log_scale.item() == logistic.MIN_LOG_SCALE
