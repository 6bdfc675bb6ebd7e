import math

import pytest
import torch

from genbench.prob import widths
from genbench.prob.widths import fit_variances, log_density


def normal(num, size, *, seed):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def squares(x, y):
    return (x[:, None] - y[None]).square().sum(dim=2)


def test_the_density_is_that_of_a_mixture_of_normal_laws():
    points, centres, variances = normal(30, 3, seed=0), normal(7, 3, seed=1), torch.rand(7).double() + 0.1
    parts = torch.distributions.Independent(torch.distributions.Normal(centres, variances.sqrt()[:, None]), 1)
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(7).double()), parts)
    torch.testing.assert_close(log_density(points, centres, variances), law.log_prob(points), rtol=1e-12, atol=0)


def _with_background(points, centres, logs, background):
    size = points.shape[1]
    parts = -0.5 * squares(points, centres) / logs.exp() - 0.5 * size * (logs + math.log(2 * math.pi))
    far = 0.81 * (points - points.mean(dim=0)).square().sum(dim=1)
    rest = -0.5 * far / background.exp() - 0.5 * size * (background + math.log(2 * math.pi))
    return torch.cat([parts - math.log(len(centres)), rest[:, None]], dim=1).logsumexp(dim=1).mean() / size


def test_the_fitted_variances_are_a_maximum_of_the_likelihood(monkeypatch):
    """No gradient is left, with the background's variance at its own maximum."""
    monkeypatch.setattr(widths, "_GAIN", -1.0)
    points, centres = normal(300, 3, seed=0), normal(5, 3, seed=1)
    fitted = fit_variances(centres, points, squares(centres, points).amin(dim=1), max_steps=3000)
    logs = fitted.log().requires_grad_()
    background = torch.zeros((), dtype=torch.float64, requires_grad=True)
    climb = torch.optim.LBFGS([background], max_iter=100, tolerance_grad=1e-12)

    def loss():
        climb.zero_grad()
        value = -_with_background(points, centres, logs.detach(), background)
        value.backward()
        return value

    climb.step(loss)
    (slope,) = torch.autograd.grad(_with_background(points, centres, logs, background.detach()), logs)
    assert float(slope.abs().max()) < 1e-5


def test_more_steps_never_lower_the_likelihood_of_held_apart_clusters():
    points = torch.cat([normal(200, 2, seed=0) * 0.1, normal(200, 2, seed=1) * 3.0 + 40.0])
    centres = torch.tensor([[0.0, 0.0], [40.0, 40.0]], dtype=torch.float64)
    fitted = fit_variances(centres, points, squares(centres, points).amin(dim=1))
    assert float(fitted[0]) == pytest.approx(0.01, rel=0.3)
    assert float(fitted[1]) == pytest.approx(9.0, rel=0.5)


def test_a_centre_on_a_point_gets_a_narrow_law_and_stays_finite():
    points = normal(50, 4, seed=0) * 10.0
    fitted = fit_variances(points[:3].clone(), points, torch.zeros(3, dtype=torch.float64))
    assert bool(fitted.isfinite().all())
    assert float(fitted.max()) < 1e-3


def test_blocks_of_any_size_give_the_same(monkeypatch):
    points, centres = normal(101, 3, seed=0), normal(6, 3, seed=1)
    nearest = squares(centres, points).amin(dim=1)
    whole = fit_variances(centres, points, nearest)
    monkeypatch.setattr(widths, "PAIRS", 60)
    torch.testing.assert_close(fit_variances(centres, points, nearest), whole, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        log_density(points, centres, whole),
        log_density(points[:50], centres, whole).new_tensor(
            torch.cat([log_density(points[:50], centres, whole), log_density(points[50:], centres, whole)]).tolist()
        ),
        rtol=1e-12,
        atol=0,
    )
