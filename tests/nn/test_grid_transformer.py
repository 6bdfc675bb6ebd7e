import pytest
import torch
from torch.nn import functional as F

from genbench.nn.grid_transformer import (
    Block,
    CellAttention,
    Double,
    GridGenerator,
    MultiScaleDiscriminator,
    from_cells,
    offsets_within,
    pixel_norm,
    to_cells,
)

GENERATOR = {"latent_dim": 4, "width": 32, "num_heads": 2, "cell": 4, "expansion": 2}
DISCRIMINATOR = {"patch": 2, "width": 8, "num_heads": 2, "cell": 4, "expansion": 2}


def test_pixel_norm_makes_the_mean_square_of_every_element_one_and_keeps_its_direction():
    x = torch.randn(3, 5, 8, dtype=torch.float64) * 10 + 4
    normed = pixel_norm(x)
    torch.testing.assert_close(normed.square().mean(-1), torch.ones(3, 5, dtype=torch.float64))
    torch.testing.assert_close(F.cosine_similarity(normed, x, dim=-1), torch.ones(3, 5, dtype=torch.float64))
    assert torch.equal(pixel_norm(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_cells_are_the_squares_of_the_grid():
    grid = torch.arange(2 * 6 * 6 * 3).view(2, 6, 6, 3)
    cells = to_cells(grid.flatten(1, 2), side=6, cell=3)
    expected = [grid[b, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].flatten(0, 1) for b, i, j in torch.cartesian_prod(
        torch.arange(2), torch.arange(2), torch.arange(2)
    )]  # fmt: skip
    assert torch.equal(cells, torch.stack(expected))
    assert torch.equal(from_cells(cells, side=6, cell=3), grid.flatten(1, 2))


@pytest.mark.parametrize(("cell", "reach"), [(2, 2), (4, 4), (3, 4)])
def test_elements_are_mixed_within_their_cell_alone(cell, reach):
    # A cell that does not divide the grid makes the grid one cell.
    torch.manual_seed(0)
    block, x = Block(8, side=4, num_heads=2, cell=cell, expansion=2), torch.randn(16, 8)
    jacobian = torch.autograd.functional.jacobian(lambda x: block(x[None])[0], x).abs().sum((1, 3))
    place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), dim=-1).view(16, 2) // reach
    assert torch.equal(jacobian > 0, (place[:, None] == place[None]).all(-1))


def test_offsets_are_numbered_alike_where_places_are_as_far_apart():
    offsets, places = offsets_within(3), torch.cartesian_prod(torch.arange(3), torch.arange(3))
    apart = places[:, None] - places[None]
    for i, j in torch.cartesian_prod(torch.arange(9), torch.arange(9)):
        same = (apart == apart[i, j]).all(-1)
        assert torch.equal(offsets == offsets[i, j], same)
    assert offsets.min() == 0
    assert offsets.max() == 24


def test_cell_attention_is_the_softmax_of_products_plus_biases():
    torch.manual_seed(0)
    layer, x = CellAttention(8, num_heads=2, cell=3), torch.randn(2, 9, 8)
    q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in layer.qkv(x).chunk(3, dim=2))
    biases = layer.bias[:, layer.offsets.flatten()].view(2, 9, 9)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=biases).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(x), layer.out(expected))


def test_doubling_keeps_the_width_or_makes_four_elements_of_one():
    x = torch.randn(2, 9, 8)
    assert Double(3, keep_width=True)(x).shape == (2, 36, 8)
    shuffled = Double(3, keep_width=False)(x)
    assert shuffled.shape == (2, 36, 2)
    torch.testing.assert_close(shuffled.view(2, 6, 6, 2)[:, 2:4, 4:6].flatten(1).sort(1)[0], x[:, 5].sort(1)[0])
    flat = torch.ones(1, 9, 8)
    torch.testing.assert_close(Double(3, keep_width=True)(flat), torch.ones(1, 36, 8))


def test_the_generator_grows_by_bicubic_resampling_below_a_side_and_by_pixel_shuffle_from_there():
    torch.manual_seed(0)
    network, widths = GridGenerator((3, 16, 16), depths=(1, 1, 1), bicubic_below=16, **GENERATOR), []
    for stage in network.stages:
        if isinstance(stage, Block):
            stage.register_forward_hook(lambda module, given, out: widths.append(tuple(out.shape[1:])))
    assert network(torch.randn(2, 4)).shape == (2, 3, 16, 16)
    assert widths == [(16, 32), (64, 32), (256, 8)]


def test_the_discriminator_reads_patches_of_every_size():
    torch.manual_seed(0)
    network, x = MultiScaleDiscriminator((3, 16, 16), depths=(1, 1, 1), **DISCRIMINATOR), torch.randn(2, 3, 16, 16)
    lengths = [embedding(F.pixel_unshuffle(x, 2 * 2**i).flatten(2).transpose(1, 2)).shape[1:]
               for i, embedding in enumerate(network.embeddings)]  # fmt: skip
    assert lengths == [(64, 8), (16, 8), (4, 16)]
    before = network(x)
    for embedding in network.embeddings:  # each scale has a say of its own
        weight = embedding[0].weight
        kept = weight.data.clone()
        weight.data.zero_()
        assert not torch.allclose(network(x), before)
        weight.data.copy_(kept)


def test_scores_couple_no_examples_and_can_be_differentiated_twice():
    torch.manual_seed(0)
    network, x = MultiScaleDiscriminator((3, 8, 8), depths=(1, 1), **DISCRIMINATOR), torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network(x), torch.cat([network(row) for row in x.split(1)]))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert network.stages[0][0].attention.bias.grad.abs().sum() > 0


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="6 px cannot be halved 2 times"):
        GridGenerator((3, 6, 6), depths=(1, 1, 1), bicubic_below=0, **GENERATOR)
    with pytest.raises(ValueError, match="patches of 4 px do not tile 6 px"):
        MultiScaleDiscriminator((3, 6, 6), depths=(1, 1), **DISCRIMINATOR)
