"""PixelRNN: exact probabilities, recurrent layers that see the past alone, and draws equal to those of the slow way."""

import itertools

import pytest
import torch
from pixel_checks import before, built, drawn_slowly, every_image, fit, gradients, law_of_draws, moved, shaken, squares

from genbench.core.dataset import Batch
from genbench.models.autoregressive.pixelrnn import PixelRNN

SMALL = {"width": 6, "num_layers": 2, "head_width": 8}
BOTH = pytest.mark.parametrize("recurrence", ["row", "diagonal"])


@BOTH
@pytest.mark.parametrize(("levels", "shape"), [(3, (1, 2, 2)), (3, (2, 1, 2)), (2, (2, 2, 2)), (3, (3, 1, 1))])
def test_probabilities_of_all_images_sum_to_one(levels, shape, recurrence):
    model = shaken(built(PixelRNN, shape, levels, recurrence=recurrence, **SMALL)).double()
    log_likelihood = model.log_likelihood(every_image(levels, shape), generator=torch.Generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_likelihood.max() > log_likelihood.mean() + 0.5  # not the uniform law, for which any masks would do


@BOTH
def test_no_logit_has_a_gradient_of_its_own_or_a_later_sub_pixel(recurrence):
    shape = (3, 4, 4)
    model = shaken(built(PixelRNN, shape, 5, recurrence=recurrence, **SMALL)).double()
    network = model.pixels
    embedded = network.softmax.embedded(torch.randint(5, (1, *shape)))
    seen = gradients(lambda e: network.softmax(network._features(e)).permute(0, 4, 3, 1, 2), embedded, shape)
    assert not (seen & ~before(shape)).any()
    assert (seen & before(shape)).sum() > 0.8 * before(shape).sum()


def _seen(recurrence, num_layers):
    model = shaken(built(PixelRNN, (1, 9, 9), 4, recurrence=recurrence, width=6, num_layers=num_layers, head_width=8))
    codes = torch.randint(4, (4, 1, 1, 9, 9), generator=torch.Generator().manual_seed(2))
    return torch.stack([moved(model.double().pixels, image).any(3) for image in codes]).any(0)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_diagonal_layer_sees_every_earlier_pixel_but_the_last_of_the_row_above(num_layers):
    expected = before((1, 9, 9))
    for i, j in itertools.product(range(1, 9), range(5)):
        expected[0, i - 1, 8, 0, i, j] = False  # past mask A only the 7x7 layer knows it, three pixels to its left
    assert torch.equal(_seen("diagonal", num_layers), expected)


def test_a_row_layer_sees_a_triangle_of_pixels():
    i, j = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    up = 8 - i  # of the pixel in the last row and the first column
    right = up + 2  # states move to the right by one for each row but the last, the 7x7 layer in that one by three
    assert torch.equal(_seen("row", 1)[0, :, :, 0, 8, 0], (up > 0) & (j <= right))


@BOTH
@pytest.mark.parametrize(
    ("shape", "levels", "settings"),
    [((1, 8, 8), 2, {}), ((3, 6, 6), 256, {}), ((3, 3, 5), 17, SMALL), ((2, 1, 6), 9, SMALL), ((3, 5, 1), 4, SMALL)],
)
def test_incremental_and_slow_drawing_draw_the_same(shape, levels, settings, recurrence):
    model = shaken(built(PixelRNN, shape, levels, recurrence=recurrence, **settings), by=0.05)
    drawn = model.sample(4, generator=torch.Generator().manual_seed(7))
    slow = drawn_slowly(model.pixels, 4, shape, torch.Generator().manual_seed(7))
    other = model.sample(4, generator=torch.Generator().manual_seed(8))
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn.long(), slow)
    assert not torch.equal(drawn, other)


def test_samples_follow_the_enumerated_law():
    model = shaken(built(PixelRNN, (1, 2, 2), 3, **SMALL))
    images = every_image(3, (1, 2, 2))
    deviations = law_of_draws(model, images, model.log_likelihood(images, generator=torch.Generator()).exp(), 20_000)
    assert deviations.max() < 4.5**2  # of 81 nearly normal deviates: P < 1e-3
    assert deviations.mean() < 1.5


@BOTH
def test_the_loss_is_the_mean_likelihood_per_sub_pixel_and_reaches_every_parameter(recurrence):
    model = shaken(built(PixelRNN, (3, 6, 6), 7, recurrence=recurrence))
    x = torch.randint(7, (8, 3, 6, 6)).to(torch.uint8)
    loss = model.loss(Batch(x), "model").total
    mean = model.log_likelihood(x, generator=torch.Generator()).mean() / 108
    assert loss.item() == pytest.approx(-mean.item(), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.slow
@BOTH
def test_training_learns_the_law_of_squares_and_draws_them(recurrence):
    x = squares(512, (1, 8, 8), 256)
    model = built(PixelRNN, (1, 8, 8), 256, recurrence=recurrence, width=12, num_layers=1, head_width=16)
    losses = fit(model, x, steps=60, lr=1e-2)
    assert losses[-1] < 0.2 * losses[0]
    drawn = model.sample(64, generator=torch.Generator().manual_seed(0))
    clean = ((drawn == 0) | (drawn == 255)).flatten(1).all(1)
    size = (drawn == 255).flatten(1).sum(1)
    assert (clean & (size == 9)).float().mean() > 0.5
