"""Mixtures of coupled logistics: they sum to one, follow Eq. 3, have the right gradients, and are drawn as they say."""

import itertools

import pytest
import torch

from genbench.prob import coupled_logistic as coupled
from genbench.prob import discretized_logistic as logistic


def _law(num_channels, num_mixtures=3, *, seed=0, count=1, spread=1.0):
    """One law for `count` pixels, float64."""
    generator = torch.Generator().manual_seed(seed)

    def values(*shape):
        drawn = spread * torch.randn(1, num_mixtures, *shape, 1, 1, generator=generator, dtype=torch.float64)
        return drawn.expand(count, *drawn.shape[1:])

    mixture = logistic.Mixture(values(), values(num_channels), values(num_channels) - 1.0)
    return coupled.CoupledMixture(mixture, values(coupled.num_pairs(num_channels)).tanh())


def _pixels(levels, num_channels):
    return torch.tensor(list(itertools.product(range(levels), repeat=num_channels)))[:, :, None, None]


@pytest.mark.parametrize(("levels", "num_channels"), [(256, 1), (2, 1), (2, 3), (16, 2), (5, 3)])
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_probabilities_of_all_pixels_sum_to_one(levels, num_channels, spread):
    pixels = _pixels(levels, num_channels)
    law = _law(num_channels, count=len(pixels), spread=spread)
    total = coupled.mixture_log_prob(pixels, law, levels=levels).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-12)


def test_blue_moves_with_red_and_green_and_green_with_red_as_in_equation_3():
    law = _law(3, num_mixtures=2)
    x = torch.tensor([10, 200, 77]).view(1, 3, 1, 1)
    r, g, _ = (2 * level / 255 - 1 for level in (10, 200, 77))
    mu = law.mixture.mu[0, :, :, 0, 0]  # (K, C)
    alpha, beta, gamma = law.coefficients[0, :, :, 0, 0].T
    expected = torch.stack([mu[:, 0], mu[:, 1] + alpha * r, mu[:, 2] + beta * r + gamma * g], dim=1)
    found = coupled.located(x, law, levels=256)
    torch.testing.assert_close(found.mu[0, :, :, 0, 0], expected, rtol=0, atol=1e-6)  # levels are scaled in float32
    assert found.logits is law.mixture.logits
    assert found.log_scale is law.mixture.log_scale


def test_a_single_channel_is_the_plain_mixture():
    law = _law(1, count=256)
    x = _pixels(256, 1)
    plain = logistic.mixture_log_prob(x, law.mixture, levels=256)
    assert torch.equal(coupled.mixture_log_prob(x, law, levels=256), plain)


@pytest.mark.parametrize("levels", [2, 256])
def test_gradients_of_all_parameters_are_those_of_finite_differences(levels):
    (logits, mu, log_scale), coefficients = _law(3, num_mixtures=2, seed=1)
    x = torch.tensor([0, levels // 2, levels - 1]).view(1, 3, 1, 1)
    leaves = [values.clone().requires_grad_() for values in (logits, 0.3 * mu, log_scale, coefficients)]

    def log_prob(logits, mu, log_scale, coefficients):
        law = coupled.CoupledMixture(logistic.Mixture(logits, mu, log_scale), coefficients)
        return coupled.mixture_log_prob(x, law, levels=levels)

    assert torch.autograd.gradcheck(log_prob, leaves)


def test_a_coefficient_has_a_gradient_of_the_channel_that_it_moves_alone():
    law = _law(3, num_mixtures=2)
    leaf = law.coefficients.clone().requires_grad_()
    x = torch.tensor([10, 200, 77]).view(1, 3, 1, 1)
    mu = coupled.located(x, coupled.CoupledMixture(law.mixture, leaf), levels=256).mu
    moved = [torch.autograd.grad(mu[:, :, c].sum(), leaf, retain_graph=True)[0][0, 0, :, 0, 0] != 0 for c in range(3)]
    assert [m.tolist() for m in moved] == [[False] * 3, [True, False, False], [False, True, True]]


@pytest.mark.parametrize(("levels", "num_channels"), [(2, 2), (3, 2), (3, 3), (5, 1)])
def test_draws_follow_the_joint_probabilities_of_their_channels(levels, num_channels):
    count = 60_000
    law = _law(num_channels, seed=3, count=count)
    u = torch.rand(count, 1 + num_channels, 1, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn = coupled.inverted(u, law, levels=levels)
    assert drawn.dtype == torch.uint8
    pixels = _pixels(levels, num_channels)
    first = coupled.CoupledMixture(
        logistic.Mixture(*(values[: len(pixels)] for values in law.mixture)), law.coefficients[: len(pixels)]
    )
    expected = coupled.mixture_log_prob(pixels, first, levels=levels).flatten().exp()
    powers = levels ** torch.arange(num_channels - 1, -1, -1)
    found = (drawn[:, :, 0, 0].long() * powers).sum(1).bincount(minlength=len(pixels)) / count
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread).all())


def test_a_uniform_at_either_end_draws_a_level_of_the_last_component():
    law = _law(1, count=2)
    u = torch.tensor([[0.0, 0.0], [1.0 - 2.0**-24, 1.0 - 2.0**-24]]).double()[:, :, None, None]
    first, last = coupled.inverted(u, law, levels=256).flatten().tolist()
    assert first == 0
    assert last == 255
