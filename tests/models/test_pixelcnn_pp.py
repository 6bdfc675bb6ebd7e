"""PixelCNN++: exact probabilities, laws that see the past alone, and draws equal to those of the slow way."""

import itertools

import pytest
import torch
from pixel_checks import built, every_image, fit, law_of_draws, shaken, squares

from genbench.core.dataset import Batch
from genbench.models.autoregressive.pixelcnn_pp import PixelCNNpp
from genbench.prob import coupled_logistic

SMALL = {"width": 6, "num_mixtures": 3}


def _slow(model, count, generator, condition=None):
    """Images drawn pixel after pixel, each from a pass over the whole image."""
    C, H, W = model.spec.shape
    uniforms = torch.rand((count, 1 + C, H, W), generator=generator)
    x = torch.zeros((count, C, H, W), dtype=torch.uint8)
    for i, j in itertools.product(range(H), range(W)):
        with torch.no_grad():
            law = model.pixels(x, condition)
        x[:, :, i, j] = coupled_logistic.inverted(uniforms, law, levels=model.spec.levels)[:, :, i, j]
    return x


@pytest.mark.parametrize(
    ("levels", "shape", "num_halvings"),
    [(3, (1, 2, 2), 1), (3, (2, 2, 2), 1), (3, (1, 2, 3), 2), (2, (2, 2, 2), 0), (2, (1, 3, 3), 2), (3, (3, 1, 2), 1)],
)
def test_probabilities_of_all_images_sum_to_one(levels, shape, num_halvings):
    model = shaken(built(PixelCNNpp, shape, levels, num_halvings=num_halvings, **SMALL), by=0.5).double()
    log_likelihood = model.log_likelihood(every_image(levels, shape), generator=torch.Generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_likelihood.max() > log_likelihood.mean() + 0.3  # not the uniform law, for which any order would do


def test_the_law_of_the_first_pixel_is_that_of_the_joint_and_its_channels_depend_on_one_another():
    shape, levels = (2, 2, 2), 3
    model = shaken(built(PixelCNNpp, shape, levels, **SMALL)).double()
    images = every_image(levels, shape)
    joint = model.log_likelihood(images, generator=torch.Generator()).exp().view([levels] * 8)
    order = [c * 4 + i * 2 + j for i, j, c in itertools.product(range(2), range(2), range(2))]  # channels within pixels
    joint = joint.permute(order)
    with torch.no_grad():
        coupled = model.pixels(images)
    first = coupled_logistic.mixture_log_prob(images, coupled, levels=levels)[:, 0, 0].exp()
    of_pixel = joint.sum(tuple(range(2, 8)))  # of the first pixel alone: (levels, levels)
    torch.testing.assert_close(first, of_pixel[images[:, 0, 0, 0], images[:, 1, 0, 0]])
    assert (of_pixel - of_pixel.sum(0) * of_pixel.sum(1, keepdim=True)).abs().max() > 1e-3  # channels do not go apart


@pytest.mark.parametrize(
    ("shape", "levels", "settings"),
    [
        ((1, 8, 8), 2, {}),
        ((3, 8, 8), 256, {"num_halvings": 2}),
        ((3, 5, 7), 17, {"num_halvings": 2, **SMALL}),
        ((2, 1, 6), 9, SMALL),
        ((3, 6, 1), 4, {"num_halvings": 0, "num_blocks": 2, **SMALL}),
    ],
)
def test_incremental_and_slow_drawing_draw_the_same(shape, levels, settings):
    model = shaken(built(PixelCNNpp, shape, levels, **settings), by=0.1)
    drawn = model.sample(5, generator=torch.Generator().manual_seed(7))
    slow = _slow(model, 5, torch.Generator().manual_seed(7))
    other = model.sample(5, generator=torch.Generator().manual_seed(8))
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, slow)
    assert not torch.equal(drawn, other)


def test_samples_beyond_one_chunk_are_those_of_slow_drawing(monkeypatch):
    monkeypatch.setattr("genbench.models.autoregressive.pixelcnn_pp.SAMPLES_AT_ONCE", 4)
    model = shaken(built(PixelCNNpp, (1, 4, 4), 6, **SMALL))
    slow = _slow(model, 11, torch.Generator().manual_seed(1))
    assert torch.equal(model.sample(11, generator=torch.Generator().manual_seed(1)), slow)


def test_samples_follow_the_enumerated_law():
    model = shaken(built(PixelCNNpp, (1, 2, 2), 3, **SMALL))
    images = every_image(3, (1, 2, 2))
    deviations = law_of_draws(model, images, model.log_likelihood(images, generator=torch.Generator()).exp(), 20_000)
    assert deviations.max() < 4.5**2  # of 81 nearly normal deviates: P < 1e-3
    assert deviations.mean() < 1.5


def test_a_first_law_of_flat_images_copies_the_neighbours():
    colours = torch.randint(256, (64, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    x = colours.expand(-1, -1, 8, 8).to(torch.uint8)
    model = built(PixelCNNpp, (3, 8, 8), 256).eval()
    model.prepare(Batch(x))
    mu = model.pixels(x).mixture.mu[:, 2, :, 1:, 1:-1]  # of the component in the middle, away from the border
    expected = (colours * 2 / 255 - 1).expand(-1, -1, 7, 6)
    assert (mu - expected).abs().max() < 0.05  # what the network adds is small


def test_the_loss_is_the_mean_likelihood_per_sub_pixel_and_reaches_every_parameter():
    model = shaken(built(PixelCNNpp, (3, 6, 6), 7))
    x = torch.randint(7, (8, 3, 6, 6)).to(torch.uint8)
    loss = model.loss(Batch(x), "model").total
    mean = model.log_likelihood(x, generator=torch.Generator()).mean() / 108
    assert loss.item() == pytest.approx(-mean.item(), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_draws_for_classes_are_those_of_slow_drawing_with_their_vectors():
    model = shaken(built(PixelCNNpp, (1, 4, 4), 5, classes=3, condition="class", **SMALL))
    labels = torch.tensor([0, 2, 1, 2])
    drawn = model.sample_given(labels, generator=torch.Generator().manual_seed(3))
    told, other = (model.told(y).detach() for y in (labels, labels.flip(0)))
    assert torch.equal(drawn, _slow(model, 4, torch.Generator().manual_seed(3), told))
    assert not torch.equal(drawn, _slow(model, 4, torch.Generator().manual_seed(3), other))


def test_gradients_are_finite_where_a_component_is_very_wide_or_very_narrow():
    model = built(PixelCNNpp, (1, 4, 4), 256, **SMALL)
    model.pixels.head.log_scale.data.copy_(torch.tensor([[-200.0], [0.0], [200.0]]))
    x = torch.tensor([0, 100, 255, 7]).repeat(4).view(1, 1, 4, 4).to(torch.uint8)
    loss = model.loss(Batch(x), "model").total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.slow
def test_training_learns_the_law_of_squares_and_draws_them():
    x = squares(512, (1, 8, 8), 2)
    model = built(PixelCNNpp, (1, 8, 8), 2)
    losses = fit(model, x, steps=100)
    assert 64 * losses[-1] < 1.5  # nats, of log 3 = 1.10 for one of three places
    size = model.sample(64, generator=torch.Generator().manual_seed(0)).flatten(1).sum(1)
    assert (size == 9).float().mean() > 0.6
