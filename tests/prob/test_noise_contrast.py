import math

import pytest
import torch

from genbench.prob.noise_contrast import noise_contrast

DATA, NOISE = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2])
"""Every state as often as it is likely, under data and under noise."""
LOG_P = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
LOG_Q = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).log()


@pytest.mark.parametrize("nu", [1, 3])
def test_it_is_least_at_the_law_of_the_data_with_its_constant(nu):
    theta = LOG_P.clone().requires_grad_()

    def loss(theta):
        ratio = theta - LOG_Q
        return noise_contrast(ratio[DATA], ratio[NOISE.repeat(nu)])

    (slope,) = torch.autograd.grad(loss(theta), theta)
    assert slope.abs().max() < 1e-12
    for other in (LOG_P + 0.1, LOG_P + torch.tensor([0.2, -0.1, 0.0])):  # the first is not normalised
        assert loss(other) > loss(LOG_P)


def test_equal_laws_cost_the_logarithm_of_four():
    assert noise_contrast(torch.zeros(5), torch.zeros(5)).item() == pytest.approx(math.log(4))


def test_noise_counts_as_often_as_it_is_drawn():
    data, noise = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 0.1, -0.4, 2.0])
    probability = torch.sigmoid(torch.cat([data, noise]) - math.log(2))
    by_hand = -(probability[:2].log().sum() + (1 - probability[2:]).log().sum()) / 2
    torch.testing.assert_close(noise_contrast(data, noise), by_hand)


def test_certain_answers_stay_finite():
    assert noise_contrast(torch.tensor([1e4]), torch.tensor([-1e4])).item() == pytest.approx(0.0)
    assert noise_contrast(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)
