import pytest
import torch

from genbench.nn.grid_coder import GridDecoder, GridEncoder, GridRise
from genbench.nn.resnet import halved_sides


@pytest.mark.parametrize(("side", "num_halvings"), [(8, 1), (28, 2), (7, 1), (32, 3)])
def test_images_become_grids_and_grids_images_of_the_same_side(side, num_halvings):
    encoder = GridEncoder(3, width=8, num_blocks=1, num_halvings=num_halvings, code_dim=5)
    decoder = GridDecoder(
        5,
        width=8,
        num_outputs=4,
        side=side,
        num_blocks=1,
        num_halvings=num_halvings,
        initial_scale=torch.full((2, 3), 0.5),
    )
    grid = encoder(torch.zeros(2, 3, side, side))
    small = halved_sides(side, num_halvings)[-1]
    assert grid.shape == (2, 5, small, small)
    outputs, scale = decoder(grid)
    assert outputs.shape == (2, 4, side, side)
    assert torch.equal(scale.detach(), torch.full((2, 3), 0.5))
    rise = GridRise(5, 8, side, num_halvings=num_halvings, num_blocks=0)
    assert rise(grid).shape == (2, 8, side, side)


def test_a_code_paints_around_its_own_place():
    torch.manual_seed(0)
    sizes = {"width": 4, "num_blocks": 0, "num_halvings": 1, "initial_scale": torch.zeros(1)}
    decoder = GridDecoder(2, num_outputs=1, side=16, **sizes)
    vectors = torch.randn(1, 2, 8, 8, requires_grad=True)
    decoder(vectors)[0][0, 0, 2, 12].square().backward()
    told = vectors.grad[0].abs().sum(0) > 0
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[0:4, 4:8] = True  # two 3x3 kernels around row 1, column 6
    assert torch.equal(told, expected)
