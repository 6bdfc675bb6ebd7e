"""Shifted streams: what every feature sees, and that features computed once are those of the whole pass."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from genbench.nn._shifted_streams_cache import StreamsProgress
from genbench.nn.shifted_streams import ShiftedStreams, concat_elu


def _network(num_channels=1, *, num_halvings=2, num_blocks=1, **settings):
    torch.manual_seed(0)
    network = ShiftedStreams(num_channels, width=6, num_blocks=num_blocks, num_halvings=num_halvings, **settings)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.double().eval()


def _seen(network, shape):
    """Which pixels have a gradient of which features: (H', W', H, W) bool, from the pixel to the feature."""
    _, H, W = shape
    x = torch.randn(1, *shape, dtype=torch.float64, requires_grad=True)
    features = network(x)[0]
    weights = torch.randn(len(features), dtype=torch.float64)
    seen = torch.zeros(H, W, H, W, dtype=torch.bool)
    for i, j in itertools.product(range(H), range(W)):
        (slope,) = torch.autograd.grad((features[:, i, j] * weights).sum(), x, retain_graph=True)
        seen[:, :, i, j] = slope[0].abs().sum(0) > 0
    return seen


def _before(H, W):
    place = torch.arange(H * W).view(H, W)
    return place[:, :, None, None] < place


@pytest.mark.parametrize("num_halvings", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 6), (1, 6, 1)])
def test_no_feature_has_a_gradient_of_its_own_or_a_later_pixel(shape, num_halvings):
    seen = _seen(_network(shape[0], num_halvings=num_halvings), shape)
    assert not (seen & ~_before(*shape[1:])).any()
    assert seen.any()


def test_with_blocks_enough_every_earlier_pixel_is_seen():
    seen = _seen(_network(num_halvings=1, num_blocks=2), (1, 6, 6))
    assert torch.equal(seen, _before(6, 6))


def test_halving_widens_what_is_seen():
    shares = [_seen(_network(num_halvings=number), (1, 12, 12))[:, :, 11, 11].sum() for number in (0, 1, 2)]
    assert shares[0] < shares[1] <= shares[2]


@pytest.mark.parametrize("condition_width", [None, 4])
@pytest.mark.parametrize("num_halvings", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 6), (1, 6, 1), (1, 2, 2)])
def test_features_computed_once_are_those_of_the_whole_pass(shape, num_halvings, condition_width):
    network = _network(shape[0], num_halvings=num_halvings, condition_width=condition_width)
    x = torch.randn(3, *shape, dtype=torch.float64)
    condition = None if condition_width is None else torch.randn(3, condition_width, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x, condition)
        progress = StreamsProgress(network, 3, shape[2], condition)
        for i in range(shape[1]):
            progress.start_row()
            for j in range(shape[2]):
                torch.testing.assert_close(progress.features(j), expected[:, :, i, j], rtol=1e-11, atol=1e-11)
                progress.put(j, x[:, :, i, j])


def test_conditions_move_features_and_dropout_does_so_in_training_alone():
    network = _network(condition_width=4, dropout=0.5)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    told = network(x, torch.ones(2, 4).double())
    assert not torch.allclose(told, network(x, None))
    assert torch.equal(told, network(x, torch.ones(2, 4).double()))
    network.train()
    assert not torch.allclose(network(x), network(x))


def test_concat_elu_is_the_elu_of_both_signs_with_its_gradient():
    x = torch.linspace(-6.0, 6.0, 121, dtype=torch.float64).view(1, 11, 11).repeat(2, 1, 1).requires_grad_()
    both = concat_elu(x)
    torch.testing.assert_close(both, F.elu(torch.cat([x, -x], dim=1)), rtol=0, atol=1e-15)
    away = (x.detach() + 0.013).requires_grad_()  # from the kink at 0, where there is no difference to compare with
    assert torch.autograd.gradcheck(concat_elu, away)
