import pytest
import torch
from torch import nn

from genbench.nn.invertible_convolution import InvertibleConvolution


def _layer(channels, start="rotation", *, moved=True):
    torch.manual_seed(channels)
    layer = InvertibleConvolution(channels, start=start).double()
    if moved:
        for parameter in layer.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return layer


def _x(*shape, dtype=torch.float64):
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("start", ["rotation", "permutation"])
@pytest.mark.parametrize("shape", [(1,), (5,), (4, 2, 3)])
def test_log_determinant_is_that_of_the_jacobian(start, shape):
    layer, x = _layer(shape[0], start), _x(*shape)
    y, log_det = layer(x)
    jacobian = torch.autograd.functional.jacobian(lambda row: layer(row[None])[0].flatten(), x[0])
    expected = torch.linalg.slogdet(jacobian.reshape(y[0].numel(), -1)).logabsdet
    torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("shape", [(48,), (12, 4, 4)])
def test_inverse_returns_the_input(dtype, tolerance, shape):
    layer, x = _layer(shape[0], moved=False).to(dtype), _x(*shape, dtype=dtype)
    for parameter in layer.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    torch.testing.assert_close(layer.inverse(layer(x)[0]), x, rtol=0, atol=tolerance)
    torch.testing.assert_close(layer(layer.inverse(x))[0], x, rtol=0, atol=tolerance)


def test_a_rotation_keeps_lengths_and_volumes_and_a_permutation_the_values():
    x = _x(6, 3, 3)
    y, log_det = _layer(6, moved=False)(x)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1), rtol=1e-6, atol=1e-6)
    assert log_det.abs() < 1e-5
    assert not torch.isclose(y, x, atol=1e-3).all()
    y, log_det = _layer(6, "permutation", moved=False)(x)
    assert torch.equal(y.sort(1).values, x.sort(1).values)
    assert log_det == 0.0


def test_every_position_has_the_same_matrix_and_gradients_flow_both_ways():
    layer, x = _layer(3), _x(3, 2, 2)
    y, _ = layer(x)
    alone, _ = layer(x[:, :, 1, 0])
    torch.testing.assert_close(y[:, :, 1, 0], alone, rtol=0, atol=1e-12)
    for found in (layer(x)[0].sum() + layer(x)[1], layer.inverse(x).square().sum()):
        grads = torch.autograd.grad(found, list(layer.parameters()), allow_unused=True)
        assert all(g is not None and g.any() for g in grads)


@pytest.mark.parametrize("shape", [(12,), (12, 4, 4)])
def test_data_are_mixed_in_their_own_precision_where_networks_run_in_half(shape):
    layer, x = _layer(12).float(), _x(*shape, dtype=torch.float32)
    expected, log_det = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, log_det_too = layer(x)
    assert torch.equal(found, expected)
    assert torch.equal(log_det_too, log_det)


def test_the_permutation_is_saved_with_the_weights():
    first, second = _layer(8, moved=False), InvertibleConvolution(8).double()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(_x(8))[0], second(_x(8))[0])
    assert isinstance(first.triangles, nn.Parameter)
