import itertools

import numpy as np
import pytest
import torch

from genbench.prob.score_matching import denoising, sliced, slope_of


def quadratic(precision):
    return lambda x: 0.5 * ((x @ precision) * x).sum(1)


def random_precision(dims=3):
    root = torch.randn(dims, dims, dtype=torch.float64)
    return root @ root.T + torch.eye(dims, dtype=torch.float64)


def test_over_all_signs_the_sliced_form_is_the_exact_one():
    # E_v v' H v is the trace for directions of random signs: of a quadratic energy, the precision's.
    precision, x = random_precision(), torch.randn(4, 3, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    mean = torch.stack([sliced(quadratic(precision), x, v.expand_as(x)) for v in signs]).mean(0)
    exact = 0.5 * (x @ precision).square().sum(1) - precision.trace()
    torch.testing.assert_close(mean, exact)
    mean = torch.stack([sliced(quadratic(precision), x, v.expand_as(x), norm="sliced") for v in signs]).mean(0)
    torch.testing.assert_close(mean, exact)


@pytest.mark.parametrize("norm", ["full", "sliced"])
def test_the_sliced_form_is_least_at_the_precision_of_gaussian_data(norm):
    # In one dimension E [P^2 x^2 / 2 - P] is least at P = 1 / variance, with the slope P variance - 1.
    x = torch.tensor([[0.5], [-1.5], [2.0]], dtype=torch.float64)
    for P in (0.3, 1 / x.square().mean().item(), 2.0):
        precision = torch.full((1, 1), P, dtype=torch.float64, requires_grad=True)
        loss = sliced(quadratic(precision), x, torch.ones_like(x), norm=norm).mean()
        (slope,) = torch.autograd.grad(loss, precision)
        assert slope.item() == pytest.approx(P * x.square().mean().item() - 1, abs=1e-12)


def test_the_denoising_form_is_least_at_the_precision_of_data_with_noise():
    # Exact means over x ~ N(0, s^2) and eps by Gauss-Hermite nodes: d/dP = 0 at P = 1 / (s^2 + sigma^2).
    s, sigma = 0.8, 0.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    nodes, weights = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    x = (s * nodes)[:, None].expand(8, 8).reshape(-1, 1)
    eps = nodes[None].expand(8, 8).reshape(-1, 1)
    weight = (weights[:, None] * weights).reshape(-1)
    for P in (0.5, 1 / (s**2 + sigma**2), 3.0):
        precision = torch.full((1, 1), P, dtype=torch.float64, requires_grad=True)
        loss = (weight * denoising(quadratic(precision), x, eps, sigma=sigma)).sum()
        (slope,) = torch.autograd.grad(loss, precision)
        assert slope.item() == pytest.approx(sigma**2 * (P * (s**2 + sigma**2) - 1), abs=1e-12)


def test_slopes_keep_their_graph_and_work_where_gradients_are_switched_off():
    precision, x = random_precision().requires_grad_(), torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        slope = slope_of(quadratic(precision), x)
    torch.testing.assert_close(slope, 0.5 * x @ (precision + precision.T))
    assert slope.requires_grad


def test_pictures_are_vectors():
    precision, (x, v) = random_precision(4), torch.randn(2, 3, 4, dtype=torch.float64)

    def of_pictures(x):
        return quadratic(precision)(x.flatten(1))

    for function, settings in ((sliced, {}), (denoising, {"sigma": 0.3})):
        flat = function(quadratic(precision), x, v, **settings)
        torch.testing.assert_close(function(of_pictures, x.view(3, 1, 2, 2), v.view(3, 1, 2, 2), **settings), flat)
