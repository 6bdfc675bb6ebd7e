import itertools

import pytest
import torch

from genbench.nn.energy_net import EnergyMLP, EnergyNet


def networks(num_outputs=1):
    torch.manual_seed(0)
    yield EnergyNet((3, 8, 8), channels=8, max_channels=16, fold=2, num_outputs=num_outputs), torch.randn(5, 3, 8, 8)
    yield EnergyMLP(2, width=16, num_layers=2, num_outputs=num_outputs), torch.randn(5, 2)


@pytest.mark.parametrize("num_outputs", [1, 4])
def test_an_example_has_the_outputs_that_are_asked_for_whatever_is_beside_it(num_outputs):
    for net, x in networks(num_outputs):
        together = net(x)
        assert together.shape == (5, num_outputs)
        torch.testing.assert_close(together, torch.cat([net(row) for row in x.split(1)]))


def test_activations_of_the_mlp_keep_their_size_from_layer_to_layer():
    torch.manual_seed(0)
    net, h, sizes = EnergyMLP(8, width=512, num_layers=4), torch.randn(200, 8), []
    for layer in net:
        h = layer(h)
        if isinstance(layer, torch.nn.Linear) and h.shape[1] == 512:
            sizes.append(h.square().mean().item())
    assert len(sizes) == 4
    assert all(0.5 < after / before < 2.0 for before, after in itertools.pairwise(sizes))


def test_slopes_have_slopes():
    for net, x in networks():
        x.requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
        weights = [p for p in net.parameters() if p.ndim > 1]
        assert all(p.grad is not None and p.grad.any() for p in weights)


@pytest.mark.parametrize("side", [4, 7, 8, 28, 32])
def test_every_side_is_taken_folded_where_it_can_be(side):
    net = EnergyNet((1, side, side), channels=4, max_channels=8, fold=2)
    assert net(torch.zeros(2, 1, side, side)).shape == (2, 1)
