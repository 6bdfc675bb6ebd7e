import pytest
import torch

from genbench.nn.bijection import Chain, Flatten, Normalise, Reorder, Reverse, even_then_odd


def _batch(*shape: int) -> torch.Tensor:
    return 2.0 + 3.0 * torch.randn(16, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5,), (4, 2, 3)])
def test_a_chain_is_undone_and_adds_its_log_determinants(shape):
    chain = Chain(Normalise(shape[0]), Reverse(), Normalise(shape[0]), Reorder(even_then_odd(shape[0])), Flatten(shape))
    chain = chain.double()
    x = _batch(*shape)
    y = chain.initialise(x)
    found, log_det = chain(x)
    assert torch.equal(found, y)
    assert y.shape == (16, x[0].numel())
    torch.testing.assert_close(chain.inverse(y), x, rtol=0, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda row: chain(row[None])[0][0], x[0]).reshape(y.shape[1], -1)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet.expand(16))


def test_each_part_starts_from_what_those_before_it_make():
    chain = Chain(Normalise(3), Reverse(), Normalise(3)).double()
    y = chain.initialise(_batch(3))
    torch.testing.assert_close(y.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert chain.parts[2].norm.log_std.abs().max() < 1e-12  # what reaches it has unit variance already


def test_a_chain_without_parts_is_the_identity():
    x = _batch(3)
    y, log_det = Chain()(x)
    assert torch.equal(y, x)
    assert torch.equal(log_det, torch.zeros(16, dtype=torch.float64))


def test_even_places_come_before_odd_ones():
    assert even_then_odd(5).tolist() == [0, 2, 4, 1, 3]
    x = torch.arange(5)[None]
    assert Reorder(even_then_odd(5))(x)[0].tolist() == [[0, 2, 4, 1, 3]]
