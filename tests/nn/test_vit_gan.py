import pytest
import torch
from torch.nn import functional as F

from genbench.nn.vit_gan import (
    L2Attention,
    PatchPainter,
    SelfModulatedNorm,
    ViTDiscriminator,
    ViTGenerator,
    attention_by_distance,
    overlapping_patches,
)


def test_attention_by_distance_is_that_of_explicit_distances():
    torch.manual_seed(0)
    q = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    apart = (q[:, :, :, None] - q[:, :, None]).square().sum(-1)
    torch.testing.assert_close(attention_by_distance(q), (-apart / 4**0.5).softmax(-1))
    assert torch.equal(attention_by_distance(q).argmax(-1), torch.arange(5).expand(2, 3, 5))


def test_l2_attention_is_the_loop_over_heads_and_elements():
    torch.manual_seed(0)
    layer, x = L2Attention(6, num_heads=2).eval(), torch.randn(1, 4, 6)
    q, v = (part.normalised().detach() @ x[0].T for part in (layer.query, layer.value))  # (w, L)
    expected = torch.zeros(4, 6)
    for head in range(2):
        rows = slice(3 * head, 3 * head + 3)
        for i in range(4):
            weight = torch.stack([-(q[rows, i] - q[rows, j]).square().sum() / 3**0.5 for j in range(4)]).softmax(0)
            expected[i, rows] = v[rows] @ weight
    torch.testing.assert_close(layer(x)[0], layer.out(expected))


def test_attention_by_distance_does_not_see_a_common_shift_of_queries():
    q = torch.randn(1, 1, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(attention_by_distance(q + 3), attention_by_distance(q))


def test_self_modulation_without_weights_is_plain_layer_norm_and_otherwise_is_affine_in_the_latent():
    torch.manual_seed(0)
    norm, h, latent = SelfModulatedNorm(6, 3), torch.randn(2, 5, 6), torch.randn(2, 3)
    plain = F.layer_norm(h, (6,), eps=1e-6)
    for layer in (norm.scale, norm.shift):
        torch.nn.init.zeros_(layer.weight)
    assert torch.equal(norm(h, latent), plain)
    torch.nn.init.normal_(norm.scale.weight)
    torch.nn.init.normal_(norm.shift.weight)
    for b in range(2):
        scale, shift = norm.scale.weight @ latent[b], norm.shift.weight @ latent[b]
        torch.testing.assert_close(norm(h, latent)[b], plain[b] * (1 + scale) + shift)


@pytest.mark.parametrize(("patch", "overlap"), [(4, 0), (4, 2), (2, 1)])
def test_overlapping_patches_cover_every_pixel_and_share_their_borders(patch, overlap):
    # The number of patches that see a pixel is that of tiles within reach; each tile is the middle of its own patch.
    x = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    patches = overlapping_patches(x, patch, overlap)
    size, tiles = patch + 2 * overlap, 8 // patch
    assert patches.shape == (1, tiles**2, size**2)
    squares = patches.view(tiles, tiles, size, size)
    middle = squares[:, :, overlap : overlap + patch, overlap : overlap + patch]
    assert torch.equal(middle.transpose(1, 2).reshape(8, 8), x[0, 0])
    seen = torch.tensor([(patches == value).sum() for value in x.flatten()]).view(8, 8)
    axis = torch.tensor([sum(-overlap <= i - patch * t < patch + overlap for t in range(tiles)) for i in range(8)])
    assert torch.equal(seen, axis[:, None] * axis)


def test_the_discriminator_sees_across_the_edges_of_a_tile_before_any_attention():
    torch.manual_seed(0)
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 3, 3] = 1.0  # the corner of the first of four tiles
    reached = overlapping_patches(x, 4, 1).abs().sum(2)
    assert torch.equal(reached > 0, torch.ones(1, 4, dtype=torch.bool))


def test_a_patch_is_painted_by_the_function_of_place_and_element():
    torch.manual_seed(0)
    painter = PatchPainter(5, hidden=7, channels=3, patch=2, frequency=2.0)
    y = torch.randn(1, 1, 5)
    painted = painter(y)[0, 0]
    for index, place in enumerate([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]):
        waves = torch.sin(painter.waves.weight @ torch.tensor(place) + painter.waves.bias)
        inner = painter.of_place.weight @ waves + painter.of_place.bias + painter.of_element.weight @ y[0, 0]
        torch.testing.assert_close(painted[index], painter.colour(torch.sin(2.0 * inner)))


def test_patches_stand_where_their_elements_stand():
    torch.manual_seed(0)
    network = ViTGenerator(
        (3, 8, 8),
        latent_dim=4,
        patch=4,
        width=8,
        num_layers=1,
        num_heads=2,
        expansion=2,
        painter_width=6,
        frequency=1.0,
    )
    painted = []
    network.painter.register_forward_hook(lambda module, given, out: painted.append(out))
    image = network(torch.randn(1, 4))[0]
    tiles = painted[0][0].view(2, 2, 4, 4, 3)
    for row in range(2):
        for column in range(2):
            part = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(part, tiles[row, column].permute(2, 0, 1))


def test_the_latent_enters_by_the_norms_alone():
    torch.manual_seed(0)
    sizes = {"patch": 4, "width": 8, "num_layers": 2, "num_heads": 2, "expansion": 2}
    network = ViTGenerator((3, 8, 8), latent_dim=4, painter_width=6, frequency=1.0, **sizes)
    one, other = network(torch.randn(2, 4))
    assert not torch.allclose(one, other)
    for norm in (m for m in network.modules() if isinstance(m, SelfModulatedNorm)):
        torch.nn.init.zeros_(norm.scale.weight)
        torch.nn.init.zeros_(norm.shift.weight)
    one, other = network(torch.randn(2, 4))
    assert torch.equal(one, other)


def test_the_discriminator_can_be_differentiated_twice_and_couples_no_examples():
    torch.manual_seed(0)
    sizes = {"patch": 4, "overlap": 1, "width": 8, "num_layers": 2, "num_heads": 2, "expansion": 2}
    network, x = ViTDiscriminator((3, 8, 8), **sizes).eval(), torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network(x), torch.cat([network(row) for row in x.split(1)]))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert network.blocks[0].attention.query.weight.grad.abs().sum() > 0


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match="patches of 3 px do not tile 8 px"):
        ViTDiscriminator((3, 8, 8), patch=3, overlap=1, width=8, num_layers=1, num_heads=2, expansion=2)
