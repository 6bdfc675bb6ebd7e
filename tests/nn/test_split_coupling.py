import pytest
import torch
from torch import nn

from genbench.models.flow.neural_spline import RationalQuadratic
from genbench.nn.elementwise_maps import Additive, SigmoidScale
from genbench.nn.split_coupling import SplitCoupling

MAPS = [Additive(), SigmoidScale(), RationalQuadratic(num_bins=4, bound=3.0)]


def _dense(passes, parameters):
    return nn.Sequential(nn.Linear(passes, 8), nn.Tanh(), nn.Linear(8, parameters))


def _conv(passes, parameters):
    return nn.Conv2d(passes, parameters, 3, padding=1)


def _x(*shape):
    """Points inside the bound of the spline."""
    return 0.5 * torch.randn(5, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("shape", [(2,), (5,), (4, 2, 2), (3, 2, 2)])
@pytest.mark.parametrize("elementwise", MAPS, ids=lambda m: type(m).__name__)
def test_one_half_passes_and_all_comes_back(elementwise, shape, parity):
    torch.manual_seed(0)
    coupling = SplitCoupling(shape[0], elementwise, _dense if len(shape) == 1 else _conv, parity=parity).double()
    x = _x(*shape)
    y, log_det = coupling(x)
    first = shape[0] - shape[0] // 2
    passes, changes = (slice(0, first), slice(first, None)) if parity == 0 else (slice(first, None), slice(0, first))
    assert torch.equal(y[:, passes], x[:, passes])
    assert not torch.isclose(y[:, changes], x[:, changes]).all(dim=1).any()
    torch.testing.assert_close(coupling.inverse(y), x, rtol=0, atol=1e-10)
    for row, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: coupling(r[None])[0].flatten(), row)
        expected = torch.linalg.slogdet(jacobian.reshape(row.numel(), -1)).logabsdet
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


def test_a_single_channel_cannot_be_coupled():
    with pytest.raises(ValueError, match="at least 2 channels"):
        SplitCoupling(1, Additive(), _dense)
