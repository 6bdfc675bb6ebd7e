import pytest
import torch

from genbench.nn.actnorm import MIN_STD, ActNorm


def _batch(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3.0 + 2.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_initialised_norm_gives_every_channel_mean_zero_and_variance_one():
    x, norm = _batch(32, 3, 4, 4), ActNorm(3).double()
    norm.initialise(x)
    y, _ = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
def test_log_determinant_is_that_of_the_jacobian_on_vectors_and_on_images(shape):
    x, norm = _batch(8, *shape), ActNorm(shape[0]).double()
    norm.initialise(x)
    y, log_det = norm(x)
    jacobian = torch.autograd.functional.jacobian(lambda row: norm(row[None])[0].flatten(), x[0])
    expected = torch.linalg.slogdet(jacobian.reshape(y[0].numel(), -1)).logabsdet
    torch.testing.assert_close(log_det, expected)


def test_inverse_returns_the_input():
    x, norm = _batch(8, 3, 4, 4), ActNorm(3).double()
    norm.initialise(x)
    torch.testing.assert_close(norm.inverse(norm(x)[0]), x, atol=1e-12, rtol=0)


def test_uninitialised_norm_is_the_identity():
    x = _batch(4, 2).float()
    y, log_det = ActNorm(2)(x)
    assert torch.equal(y, x)
    assert log_det == 0


def test_channel_that_is_constant_in_the_first_batch_gets_a_finite_scale():
    norm = ActNorm(2)
    norm.initialise(torch.zeros(4, 2))
    torch.testing.assert_close(norm.log_std.exp(), torch.full((2,), MIN_STD))
