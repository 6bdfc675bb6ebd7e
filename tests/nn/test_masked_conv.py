"""The incremental form of a masked convolution gives its outputs one by one, and its masks keep the order."""

import pytest
import torch

from genbench.nn.masked_conv import CausalConv2d, IncrementalConv, channel_groups


def _conv(mask, *, rows_above, reach):
    torch.manual_seed(0)
    conv = CausalConv2d(channel_groups(3, 2), channel_groups(3, 4), mask=mask, rows_above=rows_above, reach=reach)
    conv.bias.data.normal_()
    return conv.double()


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize(("rows_above", "reach"), [(0, 0), (0, 1), (1, 1), (3, 3), (2, 1)])
def test_incremental_outputs_are_those_of_the_whole_map(mask, rows_above, reach):
    conv = _conv(mask, rows_above=rows_above, reach=reach)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        expected, state = conv(x), IncrementalConv(conv, 3, 2, 4)
        for i in range(5):
            state.start_row()
            for j in range(4):
                state.start_pixel(j)
                for c in range(3):
                    if mask == "B":
                        state.put(j, c, x[:, 2 * c : 2 * c + 2, i, j])
                    found = state.output(j, c)
                    torch.testing.assert_close(found, expected[:, 4 * c : 4 * c + 4, i, j], rtol=1e-12, atol=1e-12)
                    if mask == "A":
                        state.put(j, c, x[:, 2 * c : 2 * c + 2, i, j])
            state.finish_row()


@pytest.mark.parametrize("mask", ["A", "B"])
def test_an_output_has_gradients_of_earlier_inputs_in_reach_alone(mask):
    conv = _conv(mask, rows_above=1, reach=1)
    x = torch.randn(1, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(conv(x)[0, 4:8, 2, 2].square().sum(), x)  # of the second group
    seen = (slope[0] != 0).view(3, 2, 5, 5).all(1)
    expected = torch.zeros(3, 5, 5, dtype=torch.bool)
    expected[:, 1, 1:4] = expected[:, 2, 1] = True
    expected[: 1 if mask == "A" else 2, 2, 2] = True
    assert torch.equal(seen, expected)


def test_first_weights_keep_the_variance_and_an_output_that_sees_nothing_is_its_bias():
    torch.manual_seed(0)
    conv = CausalConv2d(channel_groups(1, 64), channel_groups(1, 256), mask="B", rows_above=2, reach=2)
    assert conv(torch.randn(8, 64, 12, 12))[:, :, 4:, 4:-4].var().item() == pytest.approx(1.0, rel=0.1)
    alone = CausalConv2d(channel_groups(2, 3), channel_groups(2, 3), mask="A")
    assert alone(torch.randn(1, 6, 4, 4))[:, :3].abs().max().item() == 0.0
