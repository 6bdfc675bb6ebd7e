import pytest
import torch
from torch import nn

from genbench.models.flow.neural_spline import RationalQuadratic
from genbench.nn.autoregressive_flow import Autoregressive
from genbench.nn.elementwise_maps import Standardise

MAPS = [Standardise(), RationalQuadratic(num_bins=4, bound=3.0)]


def _flow(elementwise, num_dims, *, residual=False):
    torch.manual_seed(0)
    flow = Autoregressive(num_dims, elementwise, width=16, num_layers=3, residual=residual).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    return flow


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("num_dims", [1, 2, 7])
@pytest.mark.parametrize("elementwise", MAPS, ids=lambda m: type(m).__name__)
def test_the_jacobian_is_triangular_with_the_log_determinant_on_its_diagonal(elementwise, num_dims, residual):
    flow = _flow(elementwise, num_dims, residual=residual)
    x = torch.randn(4, num_dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, log_det = flow(x)
    for row, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: flow(r[None])[0][0], row)
        assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))
        torch.testing.assert_close(value, jacobian.diagonal().log().sum(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_dims", [1, 2, 7])
@pytest.mark.parametrize("elementwise", MAPS, ids=lambda m: type(m).__name__)
def test_the_inverse_undoes_it(elementwise, num_dims):
    flow = _flow(elementwise, num_dims)
    x = torch.randn(6, num_dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow(flow.inverse(x))[0], x, rtol=0, atol=1e-10)
