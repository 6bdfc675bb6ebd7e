"""Recurrent layers in two dimensions: by the book, one state after another, and with nothing seen ahead of time."""

import pytest
import torch

from genbench.nn.masked_conv import channel_groups
from genbench.nn.pixel_lstm import DiagonalBiLSTM, DiagonalLSTM, RowLSTM, skewed, unskewed
from genbench.nn.pixel_lstm_sampling import incremental_lstm

H, W = 4, 5


def _layer(kind, num_channels=1, per_channel=3):
    torch.manual_seed(0)
    layer = kind(num_channels, channel_groups(num_channels, 2), per_channel)
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layer.double()


def _input(num_channels=1):
    return torch.randn(2, 2 * num_channels, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _step(gates, cell):
    """Eq. 3 of the paper for one pixel and one channel: (B, 4n) and (B, n)."""
    o, f, i, g = gates.split(cell.shape[1], dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def test_skewing_moves_each_row_by_its_number_and_is_undone():
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3)
    assert skewed(x)[0, 0].tolist() == [[1, 2, 3, 0], [0, 4, 5, 6]]
    x = _input()
    assert torch.equal(unskewed(skewed(x), W), x)


def test_a_row_lstm_is_its_equations_pixel_by_pixel():
    layer, x = _layer(RowLSTM), _input()
    inputs, states = layer.cell.of_inputs.masked_weight[:, :, 0], layer.cell.of_states.weight
    bias, nothing = layer.cell.of_inputs.bias, x.new_zeros(2, 3)
    hidden, cells = {}, {}
    for i in range(H):
        for j in range(W):
            gates = bias + x[:, :, i, j] @ inputs[:, :, 1].T
            if j > 0:
                gates = gates + x[:, :, i, j - 1] @ inputs[:, :, 0].T
            for tap in range(3):
                gates = gates + hidden.get((i - 1, j - 1 + tap), nothing) @ states[:, :, tap].T
            hidden[i, j], cells[i, j] = _step(gates, cells.get((i - 1, j), nothing))
    expected = torch.stack([torch.stack([hidden[i, j] for j in range(W)], -1) for i in range(H)], -2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def _from_left(layer, x):
    """The equations of a diagonal LSTM pixel by pixel: (B, h, H, W)."""
    inputs, states = layer.cell.of_inputs.masked_weight[:, :, 0, 0], layer.cell.of_states.weight
    bias, nothing = layer.cell.of_inputs.bias, x.new_zeros(2, 3)
    hidden, cells = {}, {}
    for i in range(H):
        for j in range(W):
            gates = bias + x[:, :, i, j] @ inputs.T
            gates = gates + hidden.get((i - 1, j), nothing) @ states[:, :, 0].T
            gates = gates + hidden.get((i, j - 1), nothing) @ states[:, :, 1].T
            hidden[i, j], cells[i, j] = _step(gates, cells.get((i, j - 1), nothing))
    return torch.stack([torch.stack([hidden[i, j] for j in range(W)], -1) for i in range(H)], -2)


def test_a_diagonal_lstm_is_its_equations_pixel_by_pixel():
    layer, x = _layer(DiagonalLSTM), _input()
    torch.testing.assert_close(layer(x), _from_left(layer, x), rtol=1e-12, atol=1e-12)


def test_a_diagonal_bilstm_adds_the_layer_from_the_right_a_row_further_down():
    layer, x = _layer(DiagonalBiLSTM), _input()
    expected = _from_left(layer.from_left, x)
    expected[:, :, 1:] += _from_left(layer.from_right, x.flip(3)).flip(3)[:, :, :-1]
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_incremental_states_are_those_of_the_whole_map(kind, num_channels):
    layer, x = _layer(kind, num_channels), _input(num_channels)
    with torch.no_grad():
        expected, state = layer(x), incremental_lstm(layer, 2, W)
        for i in range(H):
            state.start_row()
            for j in range(W):
                state.start_pixel(j)
                for c in range(num_channels):
                    found = state.output(j, c, x[:, 2 * c : 2 * c + 2, i, j])
                    torch.testing.assert_close(found, expected[:, 3 * c : 3 * c + 3, i, j], rtol=1e-12, atol=1e-12)
            state.finish_row()


def test_a_bilstm_has_gradients_of_every_pixel_up_to_its_own_and_of_no_later_channel():
    layer = _layer(DiagonalBiLSTM, 3)
    x = _input(3).requires_grad_()
    (slope,) = torch.autograd.grad(layer(x)[0, 3:6, 2, 1].square().sum(), x)  # of the second channel
    seen = (slope[0].view(3, 2, H * W) != 0).all(1)
    place = 2 * W + 1
    assert seen[:, :place].all()
    assert seen[:, place].tolist() == [True, True, False]
    assert not seen[:, place + 1 :].any()
