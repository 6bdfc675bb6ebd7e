"""Weights with a length of their own: what it is, that steps keep it, and where a first batch puts it."""

import pytest
import torch
import torch.nn.functional as F

from genbench.nn.weight_norm import LEAST_STD, NormalisedConv2d, NormalisedUpsampling2d, start_from


def _conv(*args, **settings):
    torch.manual_seed(0)
    return NormalisedConv2d(*args, **settings).double()


def test_each_output_has_weights_of_its_length_whatever_the_direction():
    conv = _conv(5, 7, (2, 3), scale=0.3)
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), conv.length)
    before = conv.weight.clone()
    conv.direction.data *= 4.0
    torch.testing.assert_close(conv.weight, before)


def test_gradients_of_the_direction_are_orthogonal_to_it():
    conv = _conv(3, 4, (2, 2))
    conv(torch.randn(2, 3, 5, 5).double()).square().sum().backward()
    along = (conv.direction.grad * conv.direction).flatten(1).sum(1)
    torch.testing.assert_close(along, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-10)
    assert conv.direction.grad.abs().max() > 1e-2


def test_padding_and_stride_are_those_of_a_plain_convolution():
    conv = _conv(3, 4, (2, 3), padding=(1, 1, 2, -1), stride=2)
    conv.bias.data.normal_()
    x = torch.randn(2, 3, 6, 7).double()
    plain = F.conv2d(F.pad(x, (1, 1, 2, 0))[:, :, :-1], conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(conv(x), plain)


@pytest.mark.parametrize("columns", [2, 3])
def test_an_input_of_an_upsampling_reaches_its_own_two_rows_and_columns_and_of_three_one_more_on_the_left(columns):
    torch.manual_seed(0)
    up = NormalisedUpsampling2d(4, columns=columns)
    x = torch.zeros(1, 4, 3, 5)
    x[0, :, 1, 2] = 1.0
    reached = (up(x)[0] != 0).all(0)
    expected = torch.zeros(6, 10, dtype=torch.bool)
    expected[2:4, (3 if columns == 3 else 4) : 6] = True
    assert torch.equal(reached, expected)


def test_outputs_of_the_first_batch_have_mean_zero_and_the_wanted_spread_layer_after_layer():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        NormalisedConv2d(3, 8, (2, 3)), torch.nn.ReLU(), NormalisedUpsampling2d(8, columns=3), torch.nn.ELU(),
        NormalisedConv2d(8, 6, scale=0.1),
    ).double()  # fmt: skip
    x = 5.0 + 3.0 * torch.randn(16, 3, 8, 8).double()
    start_from(layers, x)
    for end, scale in ((1, 1.0), (3, 1.0), (5, 0.1)):
        std, mean = torch.std_mean(layers[:end](x), dim=(0, 2, 3))
        assert mean.abs().max() < 1e-6 * scale
        assert (std / scale - 1.0).abs().max() < 0.3  # a ReLU leaves little of some outputs, which are not blown up
    assert not layers[0]._forward_pre_hooks


def test_an_output_that_does_not_move_is_blown_up_by_no_more_than_ten():
    conv = _conv(2, 3)
    start_from(conv, torch.ones(4, 2, 3, 3).double())
    assert conv.length.max().item() == pytest.approx(1.0 / LEAST_STD)
    assert conv(torch.ones(1, 2, 1, 1).double()).abs().max() < 1e-9
