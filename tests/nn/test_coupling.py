import math

import pytest
import torch
from torch import Tensor, nn

from genbench.nn.coupling import (
    AffineCoupling,
    channel_mask,
    checkerboard_mask,
    factor_in,
    factor_out,
    squeeze,
    unsqueeze,
)


def _vector_coupling(parity: int, seed: int) -> AffineCoupling:
    torch.manual_seed(seed)
    conditioner = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4))
    return AffineCoupling(torch.tensor([1.0 - parity, float(parity)]), 2, conditioner).double()


def _image_coupling(mask: Tensor, channels: int) -> AffineCoupling:
    torch.manual_seed(0)
    return AffineCoupling(mask, channels, nn.Conv2d(channels, 2 * channels, 3, padding=1)).double()


@pytest.mark.parametrize("mask", [checkerboard_mask(2, 2, 0), checkerboard_mask(2, 2, 1), channel_mask(2, 0)])
def test_log_determinant_is_that_of_the_jacobian(mask):
    coupling = _image_coupling(mask, 2)
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, log_det = coupling(x)
    for row, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: coupling(r[None])[0].flatten(), row).reshape(8, 8)
        torch.testing.assert_close(value, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-12, rtol=0)


def test_masked_coordinates_pass_unchanged_and_the_others_come_back():
    mask = checkerboard_mask(4, 4, 0)
    coupling = _image_coupling(mask, 3)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, _ = coupling(x)
    kept = mask.bool().expand(3, 4, 4)
    assert torch.equal(y[:, kept], x[:, kept])
    assert not torch.isclose(y[:, ~kept], x[:, ~kept]).any()
    torch.testing.assert_close(coupling.inverse(y), x, atol=1e-12, rtol=0)


def test_density_of_a_stack_of_couplings_integrates_to_one_over_the_plane():
    couplings = [_vector_coupling(k % 2, seed=k) for k in range(4)]
    side = torch.linspace(-12, 12, 601, dtype=torch.float64)
    h = torch.cartesian_prod(side, side)
    log_density = torch.zeros(len(h), dtype=torch.float64)
    with torch.no_grad():
        for coupling in couplings:
            h, log_det = coupling(h)
            log_density += log_det
    log_density += -0.5 * h.square().sum(1) - math.log(2 * math.pi)
    mass = log_density.exp().sum() * (side[1] - side[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


def test_log_scale_never_exceeds_its_learned_bound():
    coupling = AffineCoupling(torch.tensor([1.0, 0.0]), 2, nn.Linear(2, 4))
    nn.init.constant_(coupling.bound, 0.7)
    _, log_det = coupling(1e6 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
    assert log_det.abs().max() <= 0.7


def test_checkerboards_of_both_parities_tile_the_picture_and_neighbours_differ():
    even, odd = checkerboard_mask(5, 6, 0), checkerboard_mask(5, 6, 1)
    assert torch.equal(even + odd, torch.ones(1, 5, 6))
    assert (even[:, 1:] != even[:, :-1]).all()
    assert (even[:, :, 1:] != even[:, :, :-1]).all()


def test_squeeze_puts_the_positions_of_a_block_before_the_colours():
    x = torch.arange(2 * 2 * 2).view(1, 2, 2, 2)  # value = colour * 4 + row * 2 + column
    assert squeeze(x).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_squeeze_and_factor_out_are_undone_by_their_inverses():
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unsqueeze(squeeze(x)), x)
    assert torch.equal(factor_in(*factor_out(squeeze(x))), squeeze(x))


def test_what_leaves_is_one_colour_of_the_checkerboard():
    board = checkerboard_mask(4, 4, 0).expand(3, 4, 4)[None]
    left, kept = factor_out(squeeze(board))
    assert torch.equal(left, torch.zeros_like(left))
    assert torch.equal(kept, torch.ones_like(kept))


def test_channel_mask_cuts_blocks_by_rows_and_so_differs_from_the_checkerboard():
    rows = torch.arange(4).view(1, 1, 4, 1).expand(1, 3, 4, 4) % 2
    kept = squeeze(rows)[0] * channel_mask(12, 0)
    assert torch.equal(kept, torch.zeros_like(kept))
