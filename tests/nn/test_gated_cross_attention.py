"""Gates that are shut change nothing, and words see the last picture before them alone."""

import torch

from genbench.nn.gated_cross_attention import Attention, GatedCrossAttention, PerceiverResampler, last_picture


def _marks(*places: int, length: int = 8) -> torch.Tensor:
    marks = torch.zeros(1, length, dtype=torch.bool)
    marks[0, list(places)] = True
    return marks


def test_words_see_the_last_picture_at_or_before_them_and_none_before_the_first():
    seen = last_picture(_marks(2, 5), 2, 1)[0]
    assert seen[:, 0].tolist() == [False, False, True, True, True, False, False, False]
    assert seen[:, 1].tolist() == [False] * 5 + [True] * 3
    latents = last_picture(_marks(2, 5), 2, 3)[0]
    assert torch.equal(latents, seen.repeat_interleave(3, dim=1))


def test_marks_before_a_part_of_a_row_are_counted_on():
    whole = last_picture(_marks(0, 4), 2, 2)
    part = last_picture(_marks(0, 4)[:, 6:], 2, 2, before=torch.tensor([2]))
    assert torch.equal(part, whole[:, 6:])


def test_a_word_that_sees_nothing_gets_zeros_and_finite_gradients():
    attention = Attention(8, 6, num_heads=2)
    x, asked = torch.randn(1, 8, 8, requires_grad=True), torch.randn(1, 2, 6, requires_grad=True)
    out = attention(x, asked, last_picture(_marks(3), 1, 2))
    assert not out[0, :3].any()
    assert out[0, 3:].any(1).all()
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert asked.grad.isfinite().all()


def test_attention_is_the_softmax_of_scaled_products():
    attention = Attention(4, 6, num_heads=1).double()
    x, asked = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    k, v = attention.key_value(asked).chunk(2, dim=2)
    weights = (attention.query(x) @ k.transpose(1, 2) / 2.0).softmax(2)
    torch.testing.assert_close(attention(x, asked), attention.out(weights @ v))


def test_a_gated_layer_is_the_identity_to_the_last_bit_until_its_gates_open():
    layer = GatedCrossAttention(8, 6, num_heads=2)
    y, latents, seen = torch.randn(2, 8, 8), torch.randn(2, 4, 6), last_picture(_marks(1, 4), 2, 2).expand(2, -1, -1)
    assert torch.equal(layer(y, latents, seen), y)
    for gate in (layer.attention_gate, layer.dense_gate):
        gate.data.fill_(0.5)
        assert not torch.equal(layer(y, latents, seen), y)
        gate.data.zero_()


def test_a_gate_weighs_what_it_lets_through_by_its_hyperbolic_tangent():
    layer = GatedCrossAttention(8, 6, num_heads=2).double()
    y, latents = torch.randn(1, 8, 8, dtype=torch.float64), torch.randn(1, 2, 6, dtype=torch.float64)
    seen = last_picture(_marks(0), 1, 2)
    layer.attention_gate.data.fill_(0.7)
    expected = y + torch.tensor(0.7, dtype=torch.float64).tanh() * layer.attention(layer.norm(y), latents, seen)
    torch.testing.assert_close(layer(y, latents, seen), expected)


def test_the_resampler_gives_as_many_latents_whatever_the_grid_and_knows_places():
    grid = torch.randn(3, 8, 4, 4)
    resampler = PerceiverResampler((8, 4, 4), num_latents=5, num_layers=2, num_heads=2)
    assert resampler(grid).shape == (3, 5, 8)
    assert not torch.allclose(resampler(grid), resampler(grid.flip(3)), atol=1e-5)
    resampler.places.data.zero_()  # without places the grid is a set
    torch.testing.assert_close(resampler(grid), resampler(grid.flip(3)), atol=1e-5, rtol=1e-4)
