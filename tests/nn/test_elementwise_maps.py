import math

import pytest
import torch

from genbench.models.flow.neural_spline import RationalQuadratic
from genbench.nn.elementwise_maps import Additive, SigmoidScale, Standardise

MAPS = [Additive(), Standardise(), SigmoidScale(), RationalQuadratic(num_bins=5, bound=3.0)]


@pytest.mark.parametrize("shape", [(7,), (6, 4), (3, 2, 2, 2)])
@pytest.mark.parametrize("elementwise", MAPS, ids=lambda m: type(m).__name__)
def test_maps_are_undone_and_know_their_slopes(elementwise, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    raw = torch.randn(shape[0], elementwise.num_parameters, *shape[1:], generator=generator, dtype=torch.float64)
    y, log_slope = elementwise.forward(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    torch.testing.assert_close(log_slope.expand(shape), slope.log(), rtol=0, atol=1e-12)
    torch.testing.assert_close(elementwise.inverse(y, raw), x, rtol=0, atol=1e-12)


def test_standardising_by_mean_and_log_deviation_whitens_a_gaussian():
    x = 3.0 + 0.5 * torch.randn(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw = torch.tensor([[5.0 * math.atanh(math.log(0.5) / 5.0), 3.0]], dtype=torch.float64).expand(10_000, 2)
    u, log_slope = Standardise().forward(x, raw)
    assert u.mean().abs() < 0.04
    assert u.std().item() == pytest.approx(1.0, abs=0.04)
    law, base = torch.distributions.Normal(3.0, 0.5), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(base.log_prob(u) + log_slope, law.log_prob(x), rtol=0, atol=1e-6)


def test_the_scale_of_a_sigmoid_never_stretches():
    raw = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 5.0
    _, log_slope = SigmoidScale().forward(torch.zeros(50), raw)
    assert (log_slope <= 0.0).all()
