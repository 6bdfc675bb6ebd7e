import pytest
import torch
from torch import nn

from genbench.nn.resnext_gan import (
    BilinearDouble,
    BilinearHalve,
    LearnedGrid,
    ResNeXtBlock,
    ResNeXtDiscriminator,
    ResNeXtGenerator,
    num_groups,
)

SIZES = {"channels": 8, "max_channels": 16, "blocks": 2, "expansion": 2, "group_size": 4, "fold": 1}


def test_a_block_starts_as_the_identity_and_learns_from_the_first_step():
    torch.manual_seed(0)
    block, h = ResNeXtBlock(8, expansion=2, group_size=4, num_branches=6), torch.randn(2, 8, 5, 5)
    assert torch.equal(block(h), h)
    block(h).square().sum().backward()
    assert block.narrow.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("num_branches", [1, 16])
def test_initial_weights_fall_with_the_fourth_root_of_the_number_of_branches(num_branches):
    torch.manual_seed(0)
    block = ResNeXtBlock(256, expansion=2, group_size=16, num_branches=num_branches)
    gain = (2 / (1 + 0.2**2)) ** 0.5 * num_branches**-0.25
    assert block.widen.weight.std().item() == pytest.approx(gain / 256**0.5, rel=0.02)
    assert block.mix.weight.std().item() == pytest.approx(gain / (9 * 16) ** 0.5, rel=0.02)


def test_groups_have_the_size_asked_for():
    assert [num_groups(1536, 16), num_groups(16, 16), num_groups(24, 16)] == [96, 1, 1]
    assert ResNeXtBlock(768, expansion=2, group_size=16, num_branches=8).mix.groups == 96


def test_doubling_and_halving_leave_planes_where_they_are():
    # Bilinear resampling is exact for linear functions of the place, but for the edges in doubling.
    row = torch.arange(8.0)
    plane = (2 * row[:, None] - 3 * row + 1)[None, None]
    fine = (torch.arange(16.0) - 0.5) / 2
    doubled = BilinearDouble(1, 1)(plane)
    expected = (2 * fine[:, None] - 3 * fine + 1)[None, None]
    torch.testing.assert_close(doubled[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    torch.testing.assert_close(BilinearHalve(1, 1)(doubled)[..., 1:-1, 1:-1], plane[..., 1:-1, 1:-1])
    assert BilinearDouble(8, 4)(torch.randn(2, 8, 3, 3)).shape == (2, 4, 6, 6)
    assert BilinearHalve(4, 8)(torch.randn(2, 4, 6, 6)).shape == (2, 8, 3, 3)


def test_the_first_grid_is_linear_in_the_latent():
    torch.manual_seed(0)
    grid, z = LearnedGrid(5, 6, 3), torch.randn(2, 5)
    torch.testing.assert_close(grid(z.sum(0, keepdim=True)), grid(z).sum(0, keepdim=True))
    torch.testing.assert_close(grid(z[:1])[0, 2], grid.maps[2] * (grid.scale.weight[2] @ z[0]))


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("side", [8, 16, 28, 32])
def test_both_networks_take_every_side_and_have_no_norm(side, fold):
    sizes = {**SIZES, "fold": fold}
    generator = ResNeXtGenerator((1, side, side), latent_dim=4, **sizes)
    discriminator = ResNeXtDiscriminator((1, side, side), **sizes)
    assert generator(torch.randn(2, 4)).shape == (2, 1, side, side)
    assert discriminator(torch.randn(2, 1, side, side)).shape == (2,)
    norms = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
    assert not any(isinstance(m, norms) for net in (generator, discriminator) for m in net.modules())


def test_the_two_networks_mirror_each_other():
    networks = ResNeXtGenerator((3, 32, 32), latent_dim=4, **SIZES), ResNeXtDiscriminator((3, 32, 32), **SIZES)
    generator, discriminator = (
        [module.mix.in_channels for module in net.modules() if isinstance(module, ResNeXtBlock)] for net in networks
    )
    assert generator == discriminator[::-1] == [32] * 6 + [16] * 2


def test_scores_couple_no_examples():
    torch.manual_seed(0)
    network, x = ResNeXtDiscriminator((3, 8, 8), **SIZES), torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(network(x), torch.cat([network(row) for row in x.split(1)]), rtol=1e-4, atol=1e-5)
