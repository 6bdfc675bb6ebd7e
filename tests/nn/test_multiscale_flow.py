import pytest
import torch

from genbench.nn.bijection import Chain, Normalise
from genbench.nn.invertible_convolution import InvertibleConvolution
from genbench.nn.multiscale_flow import Leaving, MultiScale, possible_levels


class Doubled(Leaving):
    """Adds the mean of what stays, and doubles."""

    def forward(self, left, kept):
        return 2.0 * (left + kept.mean((1, 2, 3), keepdim=True)), left.new_full(
            (len(left),), left[0].numel() * 0.6931471805599453
        )

    def inverse(self, z, kept):
        return 0.5 * z - kept.mean((1, 2, 3), keepdim=True)


def _steps(channels):
    return Chain(Normalise(channels), InvertibleConvolution(channels))


def _flow(shape, num_levels, make_fine=None):
    torch.manual_seed(0)
    return MultiScale(shape, num_levels, _steps, lambda kept: Doubled(), make_fine).double()


def _images(*shape):
    return torch.randn(6, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("make_fine", [None, _steps])
@pytest.mark.parametrize(("shape", "num_levels"), [((1, 4, 4), 2), ((3, 8, 8), 3), ((2, 2, 4), 1), ((1, 8, 4), 2)])
def test_latents_are_as_many_as_pixels_and_come_back(shape, num_levels, make_fine):
    flow, x = _flow(shape, num_levels, make_fine), _images(*shape)
    y = flow.initialise(x)
    torch.testing.assert_close(flow(x)[0], y, rtol=0, atol=1e-12)
    assert y.shape == (6, x[0].numel())
    torch.testing.assert_close(flow.inverse(y), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make_fine", [None, _steps])
@pytest.mark.parametrize(("shape", "num_levels"), [((1, 4, 4), 2), ((2, 4, 4), 1)])
def test_log_determinant_is_that_of_the_jacobian(shape, num_levels, make_fine):
    flow, x = _flow(shape, num_levels, make_fine), _images(*shape)
    flow.initialise(x)
    _, log_det = flow(x)
    for row, value in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: flow(r[None])[0][0], row).reshape(row.numel(), -1)
        torch.testing.assert_close(value, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-10)


def test_what_leaves_first_comes_first():
    """Steps that do nothing: the half of the channels that leaves is that of the squeezed picture."""
    flow, x = MultiScale((1, 4, 4), 2, lambda channels: Chain()), torch.arange(16.0).view(1, 1, 4, 4)
    y, log_det = flow(x)
    assert y[0, :8].tolist() == [4, 6, 12, 14, 5, 7, 13, 15]  # the lower pixels of every block of 2x2
    assert sorted(y[0, 8:].tolist()) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert log_det.tolist() == [0.0]


def test_steps_before_squeezes_see_full_resolution_and_end_the_flow_where_half_of_the_last_level_leaves():
    flow = _flow((1, 8, 8), 2, _steps)
    channels = [[part.parts[0].norm.mean.shape[0] for part in parts] for parts in (flow.fine, flow.levels, [flow.last])]
    assert channels == [[1, 2], [4, 8], [4]]
    assert flow.shapes == [(2, 4, 4), (4, 2, 2), (4, 2, 2)]


def test_levels_stop_where_a_side_is_odd():
    assert [possible_levels(side, side, wanted=3) for side in (7, 28, 8, 32, 64)] == [0, 2, 3, 3, 3]
    assert possible_levels(8, 6, wanted=3) == 1
