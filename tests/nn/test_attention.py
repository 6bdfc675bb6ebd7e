import math

import pytest
import torch

from genbench.nn.attention import CrossAttention, SpatialAttention


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


def crossed(num_heads: int) -> CrossAttention:
    torch.manual_seed(0)
    layer = CrossAttention(8, 6, num_heads=num_heads).double()
    torch.nn.init.normal_(layer.out.weight)
    return layer


def test_attention_to_tokens_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(CrossAttention(8, 6)(x, torch.randn(2, 4, 6)), x)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_attention_to_tokens_is_that_of_pytorch(num_heads: int) -> None:
    layer, x = crossed(num_heads), torch.randn(2, 8, 2, 3, dtype=torch.float64)
    tokens = torch.randn(2, 5, 6, dtype=torch.float64)
    peer = torch.nn.MultiheadAttention(8, num_heads, kdim=6, vdim=6, batch_first=True, dtype=torch.float64)
    key, value = layer.key_value.weight.chunk(2)
    peer.load_state_dict(
        {
            "q_proj_weight": layer.query.weight,
            "k_proj_weight": key,
            "v_proj_weight": value,
            "in_proj_bias": torch.zeros(24, dtype=torch.float64),
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    positions = layer.norm(x).flatten(2).transpose(1, 2)
    expected = x + peer(positions, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x, tokens), expected)


def test_with_one_token_all_positions_get_its_value() -> None:
    layer, x = crossed(1), torch.randn(2, 8, 2, 3, dtype=torch.float64)
    token = torch.randn(2, 1, 6, dtype=torch.float64)
    value = layer.out(layer.key_value(token)[:, 0, 8:])
    torch.testing.assert_close(layer(x, token), x + value[:, :, None, None])


def test_tokens_of_zeros_are_padding() -> None:
    layer, x = crossed(2), torch.randn(2, 8, 2, 3, dtype=torch.float64)
    tokens = torch.randn(2, 3, 6, dtype=torch.float64)
    padded = torch.cat([tokens, torch.zeros(2, 4, 6, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(layer(x, padded), layer(x, tokens))


def test_heads_must_split_the_channels_that_attend_to_tokens() -> None:
    with pytest.raises(ValueError, match="do not split"):
        CrossAttention(8, 6, num_heads=3)
