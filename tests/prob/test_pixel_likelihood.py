"""Each law sums to 1 over all levels, is the law that it is called, and draws what it scores."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Generator, Tensor

from genbench.prob import discretized_logistic as logistic
from genbench.prob.pixel_likelihood import (
    NODES,
    WEIGHTS,
    CoinThrows,
    DiscretisedGaussian,
    LogisticMixture,
    PixelLikelihood,
    gaussian_bin_log_prob,
    pixel_likelihood,
)

LAWS = ["logistic", "gaussian", "bernoulli"]
MUS = torch.tensor([-1.7, -1.0, -0.503, 0.0, 0.9921, 1.0, 3.0], dtype=torch.float64)


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _pixels(levels: int, channels: int) -> Tensor:
    """Every pixel that there is: (levels^channels, channels, 1, 1)."""
    return torch.cartesian_prod(*[torch.arange(levels)] * channels).view(-1, channels, 1, 1)


def _outputs(law: PixelLikelihood, seed: int, count: int = 1) -> tuple[Tensor, Tensor]:
    """Values of one pixel, the same for `count` of them, and scales away from their start."""
    values = 1.5 * torch.randn(1, law.num_outputs, 1, 1, generator=_generator(seed))
    scale = law.initial_scale()
    return values.expand(count, -1, -1, -1), scale + 0.05 * torch.randn(scale.shape, generator=_generator(seed + 1))


@pytest.mark.parametrize("num_mixtures", [1, 3])
@pytest.mark.parametrize(("levels", "channels"), [(2, 1), (17, 1), (256, 1), (2, 3), (6, 3)])
@pytest.mark.parametrize("name", LAWS)
def test_probabilities_of_all_pixels_sum_to_one(name, levels, channels, num_mixtures):
    law = pixel_likelihood(name, levels=levels, num_channels=channels, num_mixtures=num_mixtures)
    pixels = _pixels(levels, channels)
    for seed in range(5):
        log_p = law.log_prob(pixels, *_outputs(law, seed, len(pixels)))
        assert log_p.shape == (len(pixels), 1, 1)
        assert log_p.double().exp().sum().item() == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize("log_sigma", [-7.0, -5.0, -3.0, -1.0, 0.0, 1.0])
@pytest.mark.parametrize("levels", [256, 17, 3, 2])
def test_gaussian_bins_sum_to_one_at_any_width(levels, log_sigma):
    x = torch.arange(levels)
    single = gaussian_bin_log_prob(x, MUS.float().unsqueeze(1), torch.tensor(log_sigma), levels=levels)
    torch.testing.assert_close(single.double().exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=5e-7)
    sigma = torch.tensor(log_sigma, dtype=torch.float64)
    double = gaussian_bin_log_prob(x, MUS.unsqueeze(1), sigma, levels=levels)
    torch.testing.assert_close(double.exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=2e-8)


@pytest.mark.parametrize("levels", [256, 17, 2])
@pytest.mark.parametrize("log_sigma", [-5.0, -3.0, -1.0, 1.0])
def test_mass_of_a_gaussian_bin_is_the_difference_of_the_cumulatives_at_its_edges(levels, log_sigma):
    edges = (2 * torch.arange(levels + 1, dtype=torch.float64) - 1) / (levels - 1) - 1
    edges[0], edges[-1] = -math.inf, math.inf
    cumulative = torch.from_numpy(stats.norm.cdf(edges.numpy(), loc=0.37, scale=math.exp(log_sigma)))
    mu, sigma = torch.tensor([0.37, log_sigma], dtype=torch.float64)
    found = gaussian_bin_log_prob(torch.arange(levels), mu, sigma, levels=levels)
    torch.testing.assert_close(found.exp(), cumulative.diff(), rtol=0, atol=1e-9)


def test_gaussian_tail_keeps_its_digits_where_the_cumulatives_are_all_zero():
    """Against scipy's logarithm of the survival function, 20 to 60 standard deviations away, in single precision."""
    log_sigma, levels = math.log(0.03), 256
    x = torch.arange(80, 254, 9)
    near, far = ((x.double() * 2 / 255 + shift / 255) / 0.03 for shift in (-1, 1))  # mu is -1, where level 0 sits
    log_near, log_far = (torch.from_numpy(stats.norm.logsf(edge.numpy())) for edge in (near, far))
    expected = log_near + torch.log(-torch.expm1(log_far - log_near))
    found = gaussian_bin_log_prob(x, torch.tensor(-1.0), torch.tensor(log_sigma), levels=levels)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=0)


def test_both_ways_to_a_gaussian_mass_agree_where_they_meet():
    """Bins just above and just below one standard deviation, and slopes just above and below one."""
    levels = 17
    for log_sigma in (math.log(1 / 8), -1.2):
        sigma = torch.tensor([log_sigma - 1e-6, log_sigma + 1e-6], dtype=torch.float64).unsqueeze(1)
        mu = torch.linspace(-1.5, 1.5, 4001, dtype=torch.float64)
        found = gaussian_bin_log_prob(torch.tensor(8), mu, sigma, levels=levels)
        edges = torch.tensor([-1 / 16, 1 / 16], dtype=torch.float64).unsqueeze(1) - mu.abs()
        log_p = torch.special.log_ndtr(edges * math.exp(-log_sigma))
        expected = log_p[1] + torch.log(-torch.expm1(log_p[0] - log_p[1]))
        torch.testing.assert_close(found, expected.expand(2, -1), rtol=2e-5, atol=2e-5)  # of the shift of log sigma
        assert (found.diff(dim=1).diff(dim=1).abs() < 1e-4).all()  # no step in the value or its slope


@pytest.mark.parametrize("log_sigma", [-6.0, -1.0, 0.5])
@pytest.mark.parametrize("x", [0, 11, 16])
def test_gradients_of_a_gaussian_mass_are_those_of_finite_differences(x, log_sigma):
    mu = torch.tensor([-1.1, -0.6, -0.02, 0.375, 0.4, 1.2], dtype=torch.float64, requires_grad=True)
    sigma = torch.full_like(mu, log_sigma).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, s: gaussian_bin_log_prob(torch.tensor(x), m, s, levels=17), (mu, sigma), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_gradients_are_finite_at_any_location_and_scale(levels):
    mu = torch.tensor([-60.0, -1.0, 0.0, 0.7, 1.0, 60.0]).repeat_interleave(5).requires_grad_()
    log_sigma = torch.tensor([-7.0, -4.85, -2.0, 0.0, 8.0]).repeat(6).requires_grad_()
    for x in {0, levels // 2, levels - 1}:
        found = gaussian_bin_log_prob(torch.tensor(x), mu, log_sigma, levels=levels)
        slopes = torch.autograd.grad(found.sum(), (mu, log_sigma))
        assert bool(found.isfinite().all())
        assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_slope_far_from_the_mean_is_the_distance_to_the_near_edge_in_single_precision():
    """By Mills' ratio, d log P / d mu is t / sigma at an edge t sigma away, but for 1/t^2 of it."""
    sigma, mu = math.exp(-7.0), torch.tensor(-1.0, requires_grad=True)
    for x in (60, 100, 254):
        found = gaussian_bin_log_prob(torch.tensor(x), mu, torch.tensor(-7.0), levels=256)
        distance = (2 * x - 1) / 255 / sigma
        expected = distance * (1 + 1 / distance**2) / sigma
        assert torch.autograd.grad(found, mu)[0].item() == pytest.approx(expected, rel=2e-6)


def test_points_of_the_quadrature_are_the_roots_of_the_fourth_legendre_polynomial():
    nodes, weights = (torch.tensor(values, dtype=torch.float64) for values in (NODES, WEIGHTS))
    moments = torch.stack([(weights * nodes**power).sum() for power in range(8)])
    expected = torch.tensor([2 / (power + 1) if power % 2 == 0 else 0.0 for power in range(8)], dtype=torch.float64)
    torch.testing.assert_close(moments, expected, rtol=0, atol=1e-15)


def test_density_of_a_gaussian_passes_one_where_the_mass_of_the_bin_stays_a_probability():
    law = DiscretisedGaussian(levels=256, num_channels=1)
    x = torch.full((1, 1, 1, 1), 100)
    values = x * 2.0 / 255 - 1.0
    log_p = law.log_prob(x, values, torch.tensor([-0.7])).item()
    assert log_p == pytest.approx(0.0, abs=1e-4)
    assert log_p <= 0.0


@pytest.mark.parametrize("channels", [1, 3])
def test_coin_of_two_levels_is_the_cross_entropy(channels):
    law = CoinThrows(levels=2, num_channels=channels)
    logits = 3 * torch.randn(50, channels, 4, 4, generator=_generator())
    x = torch.randint(0, 2, logits.shape, generator=_generator(1), dtype=torch.uint8)
    expected = torch.distributions.Bernoulli(logits=logits.double()).log_prob(x.double()).sum(1)
    torch.testing.assert_close(law.log_prob(x, logits, law.initial_scale()).double(), expected, rtol=1e-6, atol=1e-6)


def test_on_two_levels_coin_logistic_and_gaussian_are_one_law():
    """The logit of the logistic is mu / scale, and the probit of the Gaussian mu / sigma."""
    mu = torch.linspace(-2, 2, 41).view(41, 1, 1, 1)
    log_scale = torch.tensor(-0.4)
    scale = (log_scale / logistic.SCALE_GAIN).view(1)
    for x in (0, 1):
        level = torch.full((41, 1, 1, 1), x)
        coin = CoinThrows(levels=2, num_channels=1)
        weighed = torch.cat([torch.zeros_like(mu), mu], dim=1)  # a weight for the only component, and its location
        found = LogisticMixture(levels=2, num_channels=1).log_prob(level, weighed, scale.view(1, 1))
        expected = coin.log_prob(level, mu * torch.exp(-log_scale), coin.initial_scale())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        found = DiscretisedGaussian(levels=2, num_channels=1).log_prob(level, mu, scale)
        probability = torch.special.ndtr(mu.double() * math.exp(0.4))
        expected = coin.log_prob(level, torch.logit(probability).float(), coin.initial_scale())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_coin_of_many_levels_is_the_binomial_distribution(levels):
    law, n = CoinThrows(levels=levels, num_channels=1), levels - 1
    x = torch.arange(levels).view(-1, 1, 1, 1)
    for logit in (-6.0, -0.3, 0.0, 2.5):
        found = law.log_prob(x, torch.full((levels, 1, 1, 1), logit), law.initial_scale()).flatten()
        p = torch.sigmoid(torch.tensor(logit, dtype=torch.float64)).item()
        expected = torch.from_numpy(stats.binom.logpmf(x.flatten().numpy(), n, p))
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_cross_entropy_of_grey_pixels_is_a_binomial_shrunk_and_no_likelihood():
    law, n = CoinThrows(levels=256, num_channels=1), 255
    x = torch.arange(256).view(-1, 1, 1, 1)
    logits = torch.full((256, 1, 1, 1), 0.4)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, x / n, reduction="none").flatten()
    constants = law.log_prob(x, logits, law.initial_scale()).flatten() / n + cross_entropy
    torch.testing.assert_close(
        constants,
        (law.log_prob(x, -logits, law.initial_scale()) / n).flatten() + cross_entropy.flip(0),
        atol=1e-6,
        rtol=0,
    )  # log (n choose k) / n, whatever the logit is
    assert (-cross_entropy).exp().sum().item() > 100  # what it calls probabilities


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_probabilities(name, levels):
    law, count = pixel_likelihood(name, levels=levels, num_channels=2, num_mixtures=2), 40_000
    values, scale = _outputs(law, 3, count)
    draws = law.sample(values, scale, generator=_generator(5))
    assert draws.dtype == torch.uint8
    pixels = _pixels(levels, 2)
    expected = law.log_prob(pixels, values[: len(pixels)], scale).flatten().exp()
    index = draws[:, 0, 0, 0].long() * levels + draws[:, 1, 0, 0].long()
    found = torch.bincount(index, minlength=levels**2) / count
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread + 1e-5).all())


@pytest.mark.parametrize("name", LAWS)
def test_draws_come_from_the_generator_alone(name):
    law = pixel_likelihood(name, levels=9, num_channels=3)
    values, scale = _outputs(law, 0, 20)
    before = torch.get_rng_state()
    first, again, other = (law.sample(values, scale, generator=_generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", LAWS)
def test_means_are_the_nearest_level_to_the_mean_of_the_law_where_no_end_is_near(name, levels):
    law = pixel_likelihood(name, levels=levels, num_channels=1)
    values = torch.zeros(1, law.num_outputs, 1, 1)
    values[:, -1] = 0.2  # the logit, or the location beside the weight of the only component
    scale = law.initial_scale() - (0.3 if law.initial_scale().numel() else 0.0)  # narrow
    p = law.log_prob(_pixels(levels, 1), values.expand(levels, -1, -1, -1), scale).flatten().exp()
    mean = (p * torch.arange(levels)).sum().item()
    assert abs(law.mean(values, scale).item() - mean) <= 0.5 + 1e-3


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", LAWS)
def test_values_of_a_mean_have_that_mean(name, levels):
    law = pixel_likelihood(name, levels=levels, num_channels=3, num_mixtures=2)
    x = torch.randint(0, levels, (40, 3, 5, 5), generator=_generator())
    values = law.values_of_mean(x)
    assert values.shape == (law.num_outputs, 5, 5)
    means = law.mean(values.unsqueeze(0), law.initial_scale()).squeeze(0)
    assert ((means.double() - x.double().mean(0)).abs() <= 0.5 + 1e-4).all()


def test_pixel_that_is_never_on_starts_at_one_in_a_thousand():
    law = CoinThrows(levels=2, num_channels=1)
    x = torch.zeros(9, 1, 1, 2, dtype=torch.uint8)
    x[..., 1] = 1
    torch.testing.assert_close(torch.sigmoid(law.values_of_mean(x)).flatten(), torch.tensor([0.001, 0.999]))


def test_scales_have_a_floor():
    law = DiscretisedGaussian(levels=256, num_channels=1)
    x, values = torch.full((1, 1, 1, 1), 3), torch.zeros(1, 1, 1, 1)
    below, at = (law.log_prob(x, values, torch.tensor([log_sigma])) for log_sigma in (-30.0, -0.7))
    assert torch.equal(below, at)
