"""The autoregressive property by the Jacobian, and generation against as many full passes as there are dimensions."""

import pytest
import torch
from torch import nn

from genbench.nn.made import MADE

SIZES = [(1, 8), (2, 8), (3, 2), (5, 16), (9, 4), (12, 40)]


def _made(num_dims, width, *, num_outputs=2, num_layers=1, residual=False):
    torch.manual_seed(num_dims)
    made = MADE(num_dims, num_outputs, width=width, num_layers=num_layers, residual=residual).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7 if parameter.ndim == 2 else 0.2)
    return made


@pytest.mark.parametrize(
    ("num_layers", "residual"), [(1, False), (2, False), (3, False), (1, True), (3, True), (5, True)]
)
@pytest.mark.parametrize(("num_dims", "width"), SIZES)
def test_outputs_see_the_inputs_before_them_and_no_others(num_dims, width, num_layers, residual):
    made = _made(num_dims, width, num_layers=num_layers, residual=residual)
    seen = torch.zeros(num_dims, num_dims, dtype=torch.bool)
    for seed in range(20):
        x = 3.0 * torch.randn(num_dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda row: made(row[None])[0], x)  # (P, D, D)
        seen |= (jacobian != 0).any(0)
    before = torch.ones(num_dims, num_dims, dtype=torch.bool).tril(-1)
    assert not (seen & ~before).any()
    if width >= 2 * num_dims:  # enough units that each degree has some, and some of them are active
        assert torch.equal(seen, before)


@pytest.mark.parametrize(("num_layers", "residual"), [(1, False), (2, False), (3, True), (5, True)])
@pytest.mark.parametrize(("num_dims", "width"), SIZES)
def test_one_by_one_gives_what_full_passes_give(num_dims, width, num_layers, residual):
    made = _made(num_dims, width, num_outputs=3, num_layers=num_layers, residual=residual)
    noise = torch.randn(4, num_dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def find(i, outputs):
        return noise[:, i] * outputs[:, 0].tanh().exp() + outputs[:, 1] + outputs[:, 2]

    expected = torch.zeros_like(noise)
    for i in range(num_dims):
        expected[:, i] = find(i, made(expected)[:, :, i])
    torch.testing.assert_close(made.one_by_one(4, find), expected, rtol=1e-12, atol=1e-12)


def test_it_starts_at_zero():
    made = MADE(6, 2, width=16, num_layers=3, residual=True)
    assert torch.equal(made(torch.randn(3, 6)), torch.zeros(3, 2, 6))


def test_masks_are_not_saved():
    assert not [name for name in MADE(4, 1, width=8, num_layers=2).state_dict() if "mask" in name]


@pytest.mark.parametrize(("num_layers", "residual"), [(0, False), (2, True)])
def test_layers_that_do_not_pair_are_refused(num_layers, residual):
    with pytest.raises(ValueError, match="in pairs"):
        MADE(3, 1, width=8, num_layers=num_layers, residual=residual)
