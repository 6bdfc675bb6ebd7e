"""PixelCNN: exact probabilities, masks that hide what comes later, and draws that equal those of the slow way."""

import itertools

import pytest
import torch
from pixel_checks import before, built, drawn_slowly, every_image, fit, gradients, law_of_draws, moved, shaken, squares

from genbench.core.dataset import Batch
from genbench.models.autoregressive.pixelcnn import PixelCNN

SMALL = {"width": 6, "num_blocks": 2, "head_width": 8}


@pytest.mark.parametrize(("levels", "shape"), [(3, (1, 2, 2)), (3, (2, 1, 2)), (2, (2, 2, 2)), (3, (3, 1, 1))])
def test_probabilities_of_all_images_sum_to_one(levels, shape):
    model = shaken(built(PixelCNN, shape, levels, **SMALL)).double()
    log_likelihood = model.log_likelihood(every_image(levels, shape), generator=torch.Generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_likelihood.max() > log_likelihood.mean() + 0.5  # not the uniform law, for which any masks would do


def _reached(shape, num_blocks):
    """What the masks of the paper let through, layer after layer: (C', H', W', C, H, W) bool."""
    C, H, W = shape
    inside = set(itertools.product(range(H), range(W)))
    places = [(i, j) for i in (-3, -2, -1) for j in range(-3, 4)] + [(0, j) for j in (-3, -2, -1)]
    seen = {(i, j): {(i + a, j + b) for a, b in places} & inside for i, j in inside}
    for _ in range(num_blocks):
        steps = [(0, 0), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
        seen = {
            (i, j): set().union(*[seen[i + a, j + b] for a, b in steps if (i + a, j + b) in inside]) for i, j in inside
        }
    allowed = before((C, 1, 1)).view(C, 1, 1, C, 1, 1).repeat(1, H, W, 1, H, W)
    allowed &= torch.eye(H * W, dtype=torch.bool).view(1, H, W, 1, H, W)
    for i, j in inside:
        # a channel that comes earlier at a pixel passes on what it sees, but never more than its own pixel's past
        for a, b in seen[i, j]:
            allowed[:, a, b, :, i, j] = True
    return allowed


@pytest.mark.parametrize(("num_channels", "num_blocks"), [(1, 1), (1, 3), (3, 1)])
def test_each_logit_sees_what_the_masks_let_through_and_nothing_else(num_channels, num_blocks):
    shape = (num_channels, 8, 8)
    model = shaken(built(PixelCNN, shape, 4, width=12, num_blocks=num_blocks, head_width=8)).double()
    codes = torch.randint(4, (4, 1, *shape), generator=torch.Generator().manual_seed(2))
    seen = torch.stack([moved(model.pixels, image).any(3) for image in codes]).any(0)
    expected = _reached(shape, num_blocks)
    assert not (expected & ~before(shape)).any()
    assert not (seen & ~expected).any()
    assert not (expected & ~seen).any()
    assert not seen[0, 3, 7, 0, 4, 2]  # the blind spot, above and to the right


def test_no_logit_has_a_gradient_of_its_own_or_a_later_sub_pixel():
    shape = (3, 4, 4)
    model = shaken(built(PixelCNN, shape, 5, **SMALL)).double()
    network = model.pixels
    embedded = network.softmax.embedded(torch.randint(5, (1, *shape)))
    seen = gradients(lambda e: network.softmax(network._features(e)).permute(0, 4, 3, 1, 2), embedded, shape)
    assert not (seen & ~before(shape)).any()
    assert (seen & before(shape)).sum() > 0.8 * before(shape).sum()


@pytest.mark.parametrize(
    ("shape", "levels", "settings"),
    [((1, 8, 8), 2, {}), ((3, 8, 8), 256, {}), ((3, 5, 7), 17, SMALL), ((2, 1, 6), 9, SMALL), ((3, 6, 1), 4, SMALL)],
)
def test_incremental_and_slow_drawing_draw_the_same(shape, levels, settings):
    model = shaken(built(PixelCNN, shape, levels, **settings), by=0.05)
    drawn = model.sample(5, generator=torch.Generator().manual_seed(7))
    slow = drawn_slowly(model.pixels, 5, shape, torch.Generator().manual_seed(7))
    other = model.sample(5, generator=torch.Generator().manual_seed(8))
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn.long(), slow)
    assert not torch.equal(drawn, other)


def test_samples_beyond_one_chunk_are_those_of_slow_drawing(monkeypatch):
    monkeypatch.setattr("genbench.nn.raster_sampling.SAMPLES_AT_ONCE", 4)
    model = shaken(built(PixelCNN, (1, 4, 4), 6, **SMALL))
    slow = drawn_slowly(model.pixels, 11, (1, 4, 4), torch.Generator().manual_seed(1))
    assert torch.equal(model.sample(11, generator=torch.Generator().manual_seed(1)).long(), slow)


def test_samples_follow_the_enumerated_law():
    model = shaken(built(PixelCNN, (1, 2, 2), 3, **SMALL))
    images = every_image(3, (1, 2, 2))
    deviations = law_of_draws(model, images, model.log_likelihood(images, generator=torch.Generator()).exp(), 20_000)
    assert deviations.max() < 4.5**2  # of 81 nearly normal deviates: P < 1e-3
    assert deviations.mean() < 1.5


def test_the_loss_is_the_mean_likelihood_per_sub_pixel_and_reaches_every_parameter():
    model = shaken(built(PixelCNN, (3, 6, 6), 7))
    x = torch.randint(7, (8, 3, 6, 6)).to(torch.uint8)
    loss = model.loss(Batch(x), "model").total
    mean = model.log_likelihood(x, generator=torch.Generator()).mean() / 108
    assert loss.item() == pytest.approx(-mean.item(), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.slow
def test_training_learns_the_law_of_squares_and_draws_them():
    x = squares(512, (1, 8, 8), 256)
    model = built(PixelCNN, (1, 8, 8), 256, width=16, num_blocks=3, head_width=16)
    losses = fit(model, x, steps=80)
    assert losses[-1] < 0.2 * losses[0]
    drawn = model.sample(64, generator=torch.Generator().manual_seed(0))
    clean = ((drawn == 0) | (drawn == 255)).flatten(1).all(1)
    size = (drawn == 255).flatten(1).sum(1)
    assert (clean & (size == 9)).float().mean() > 0.5
