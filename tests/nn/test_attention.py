import math

import pytest
import torch

from genbench.nn.attention import SpatialAttention


def attention(channels: int, num_heads: int) -> SpatialAttention:
    torch.manual_seed(0)
    layer = SpatialAttention(channels, num_heads=num_heads).double()
    torch.nn.init.normal_(layer.out.weight)
    torch.nn.init.normal_(layer.qkv.bias)
    return layer


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(SpatialAttention(8)(x), x)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_moved_positions_move_the_result_and_nothing_else(num_heads: int) -> None:
    layer, x = attention(8, num_heads), torch.randn(2, 8, 3, 5, dtype=torch.float64)
    order = torch.randperm(15)
    moved = x.flatten(2)[:, :, order].unflatten(2, (3, 5))
    torch.testing.assert_close(layer(moved), layer(x).flatten(2)[:, :, order].unflatten(2, (3, 5)))


@pytest.mark.parametrize("num_heads", [1, 2])
def test_attention_is_its_formula_head_by_head(num_heads: int) -> None:
    layer, x = attention(8, num_heads), torch.randn(1, 8, 2, 3, dtype=torch.float64)
    tokens = layer.norm(x)[0].flatten(1).T  # (6, 8)
    q, k, v = (tokens @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=1)
    size = 8 // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1)
        heads.append(weights @ v[:, part])
    expected = x[0].flatten(1) + (torch.cat(heads, dim=1) @ layer.out.weight.T + layer.out.bias).T
    torch.testing.assert_close(layer(x)[0].flatten(1), expected)


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="do not split"):
        SpatialAttention(8, num_heads=3)
