"""Blocks start as the identity, equal PyTorch's own layers once gates are open, and hear time and condition."""

import pytest
import torch
from torch import nn

from genbench.nn.diffusion_transformer import Block, DiffusionTransformer, places


def _made(side=8, patch=2, out_channels=3, **settings):
    torch.manual_seed(0)
    sizes = {"width": 16, "num_layers": 2, "num_heads": 4} | settings
    return DiffusionTransformer(3, out_channels, resolution=side, patch=patch, **sizes)


def _opened(model):
    """Away from the start, where nothing passes."""
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def test_a_block_starts_as_the_identity_and_the_network_at_zero():
    block, x = Block(16, num_heads=4), torch.randn(2, 5, 16)
    assert torch.equal(block(x, torch.randn(2, 16)), x)
    assert not _made()(torch.randn(2, 3, 8, 8), torch.tensor([1, 500])).any()


def test_a_block_with_open_gates_is_a_pre_norm_layer_of_pytorch():
    torch.manual_seed(0)
    width, heads = 24, 4
    block = Block(width, num_heads=heads)
    block.modulation.linear.bias.data = torch.cat([torch.zeros(2 * width), torch.ones(width)] * 2)
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        0.0,
        nn.GELU(approximate="tanh"),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )
    pairs = {"self_attn.in_proj": "qkv", "self_attn.out_proj": "out", "linear1": "wide", "linear2": "narrow"}
    weights = layer.state_dict()
    for theirs, ours in pairs.items():
        for kind in ("weight", "bias"):
            name = f"{theirs}_{kind}" if theirs.endswith("in_proj") else f"{theirs}.{kind}"
            weights[name] = block.state_dict()[f"{ours}.{kind}"]
    layer.load_state_dict(weights)
    x = torch.randn(3, 7, width)
    torch.testing.assert_close(block(x, torch.randn(3, width)), layer(x), rtol=1e-5, atol=1e-5)


def test_modulation_is_shift_scale_and_gate_by_hand():
    torch.manual_seed(0)
    block, x, embedding = _opened(Block(8, num_heads=2)), torch.randn(2, 3, 8), torch.randn(2, 8)
    shift1, scale1, gate1, shift2, scale2, gate2 = (
        v[:, None] for v in block.modulation.linear(nn.functional.silu(embedding)).chunk(6, dim=1)
    )

    def normed(h):
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()

    h = x + gate1 * block._attend(normed(x) * (1 + scale1) + shift1)
    dense = block.narrow(nn.functional.gelu(block.wide(normed(h) * (1 + scale2) + shift2), approximate="tanh"))
    torch.testing.assert_close(block(x, embedding), h + gate2 * dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (28, 4), (6, 1), (8, 8)])
def test_shapes_of_any_grid(side, patch):
    model = _opened(_made(side, patch, out_channels=6))
    assert model(torch.randn(2, 3, side, side), torch.tensor([1, 9])).shape == (2, 6, side, side)


def test_time_condition_and_place_are_heard_and_examples_are_apart():
    model, x, t = _opened(_made()).eval(), torch.randn(2, 3, 8, 8), torch.tensor([10, 10])
    out = model(x, t)
    assert not torch.allclose(model(x, t + 400), out)
    assert not torch.allclose(model(x, t, torch.ones(2, 16)), out)
    torch.testing.assert_close(model(x, t, torch.zeros(2, 16)), out)
    torch.testing.assert_close(model(x[:1], t[:1]), out[:1], rtol=1e-4, atol=1e-5)
    moved = model(x.roll(2, dims=3), t).roll(-2, dims=3)
    assert not torch.allclose(moved, out, atol=1e-3)


def test_places_tell_rows_and_columns_apart():
    found = places(4, 16)
    assert found.shape == (16, 16)
    assert len(found.unique(dim=0)) == 16
    assert torch.equal(found[1, :8], found[0, :8])  # one row
    assert torch.equal(found[4, 8:], found[0, 8:])  # one column


def test_the_xl_network_has_the_size_of_the_paper():
    """675 million parameters with 1,000 classes and the null class, latents of 4 channels and 32 pixels."""
    with torch.device("meta"):
        model = DiffusionTransformer(4, 8, resolution=32, patch=2, width=1152, num_layers=28, num_heads=16)
    count = sum(p.numel() for p in model.parameters()) + 1001 * 1152
    assert count == pytest.approx(675e6, rel=0.002)


@pytest.mark.parametrize(("wrong", "message"), [({"patch": 3}, "do not tile"), ({"num_heads": 3}, "does not split")])
def test_sizes_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        _made(**wrong)
