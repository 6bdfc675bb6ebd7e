import pytest
import torch

from genbench.nn import resnet


def test_a_stack_of_residual_blocks_starts_near_the_identity_and_trains_every_weight():
    torch.manual_seed(0)
    stack = torch.nn.Sequential(*(resnet.ResidualBlock(6, hidden=4) for _ in range(10)))
    h = torch.randn(2, 6, 5, 5)
    found = stack(h)
    assert (found - h).norm().item() < 0.2 * h.norm().item()
    found.square().mean().backward()
    assert all(bool((p.grad != 0).any()) for p in stack.parameters())


@pytest.mark.parametrize("side", [8, 16, 28, 64])
@pytest.mark.parametrize("num_halvings", [1, 2, 3])
def test_towers_lead_down_to_the_smallest_side_and_back(side, num_halvings):
    down = resnet.DownTower(3, 8, num_halvings=num_halvings, num_blocks=1)
    up = resnet.UpTower(8, 5, side, num_halvings=num_halvings, num_blocks=1)
    smallest = resnet.halved_sides(side, num_halvings)[-1]
    h = down(torch.randn(2, 3, side, side))
    assert h.shape == (2, 8, smallest, smallest)
    assert up(h).shape == (2, 5, side, side)


def test_sides_are_rounded_up_when_halved():
    assert resnet.halved_sides(28, 4) == [28, 14, 7, 4, 2]


@pytest.mark.parametrize(("side", "expected"), [(8, 1), (16, 2), (28, 3), (32, 3), (64, 4), (2, 1)])
def test_halvings_stop_at_the_smallest_side(side, expected):
    assert resnet.halvings_until(side, 4) == expected


def test_the_last_row_of_an_odd_side_is_seen_and_written():
    torch.manual_seed(0)
    halve, double = resnet.Halve(1, 1, kernel_size=1), resnet.Double(1, 1, 7, kernel_size=1)
    x = torch.randn(1, 1, 7, 7, requires_grad=True)
    double(halve(x)).sum().backward()
    assert bool((x.grad != 0).all())


def test_doubling_undoes_halving_when_the_convolutions_are_identities():
    halve, double = resnet.Halve(1, 4, kernel_size=1), resnet.Double(4, 1, 6, kernel_size=1)
    for conv in (halve.conv, double.conv):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    x = torch.randn(2, 1, 6, 6)
    assert torch.equal(double(halve(x)), x)
