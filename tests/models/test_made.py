"""MADE: exact probabilities under every mask, their mean over masks, and draws that equal those of the slow way."""

import math

import numpy as np
import pytest
import torch
from pixel_checks import before, built, every_image, fit, gradients, law_of_draws, moved, shaken, squares

from genbench.core.dataset import Batch
from genbench.models.autoregressive.made import MADE, Numbers
from genbench.nn.level_softmax import draw

SMALL = {"width": 24, "head_width": 6}
SHUFFLED = {"num_masks": 3, "shuffled": True, **SMALL}


@pytest.mark.parametrize("settings", [SMALL, SHUFFLED, {"num_layers": 1, **SMALL}, {"num_layers": 3, **SMALL}])
@pytest.mark.parametrize(("levels", "shape"), [(3, (1, 2, 2)), (3, (2, 1, 2)), (2, (2, 2, 2)), (3, (3, 1, 1))])
def test_probabilities_of_all_images_sum_to_one(levels, shape, settings):
    model = shaken(built(MADE, shape, levels, **settings)).double()
    log_likelihood = model.log_likelihood(every_image(levels, shape), generator=torch.Generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_likelihood.max() > log_likelihood.mean() + 0.5  # not the uniform law, for which any masks would do


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("shuffled", [False, True])
def test_each_logit_depends_on_what_comes_before_it_in_the_order_and_on_nothing_else(levels, shuffled):
    shape = (2, 3, 3)
    settings = {"num_masks": 2, "shuffled": shuffled, "width": 256, "head_width": 6}
    model = shaken(built(MADE, shape, levels, **settings)).double()
    codes = torch.randint(levels, (4, 1, *shape), generator=torch.Generator().manual_seed(2))
    for mask, numbers in enumerate(model.pixels.masks):
        place = torch.empty(18, dtype=torch.int64)
        place[numbers.order] = torch.arange(18)
        place = place.view(3, 3, 2).permute(2, 0, 1)
        earlier = place[..., None, None, None] < place
        assert shuffled or torch.equal(earlier, before(shape))
        seen = torch.stack([moved(lambda x, m=mask: model.pixels(x, m), image).any(3) for image in codes]).any(0)
        assert torch.equal(seen, earlier)


def test_no_logit_has_a_gradient_of_its_own_or_a_later_sub_pixel(monkeypatch):
    shape = (3, 3, 3)
    network = shaken(built(MADE, shape, 5, width=256, head_width=6)).double().pixels
    codes = torch.randint(5, (1, *shape))

    def logits_of(e):
        of_levels = e.unflatten(1, (3, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3)  # (1, D, F)
        monkeypatch.setattr(network, "embedded", lambda codes: of_levels)
        monkeypatch.setattr(network, "values", lambda codes: of_levels[..., 1])  # what A reads is a feature too
        return network(codes)

    embedded, expected = network.softmax.embedded(codes), network(codes)
    torch.testing.assert_close(logits_of(embedded), expected)
    assert torch.equal(gradients(logits_of, embedded, shape), before(shape))


def test_orders_are_permutations_and_numbers_leave_something_to_see():
    rng = np.random.default_rng(0)
    numbers = Numbers(7, width=50, num_layers=2, shuffled=True, rng=rng)
    assert sorted(numbers.order) == list(range(7))
    assert numbers.order != list(range(7))
    places, first, second = numbers.of_layers
    assert [int(places[dim]) for dim in numbers.order] == list(range(1, 8))
    assert (first.min(), first.max()) == (1, 6)
    assert second.min() >= first.min()
    assert second.max() <= 6
    assert numbers.counts[0] == [int((first <= t).sum()) for t in range(8)]


def test_the_likelihood_is_the_mean_probability_over_masks():
    model = shaken(built(MADE, (1, 3, 3), 4, **SHUFFLED))
    x = torch.randint(4, (5, 1, 3, 3))
    of_masks = []
    for mask in range(3):
        log_p = model.pixels(x, mask).double().log_softmax(1)
        of_masks.append(log_p.gather(1, x[:, None])[:, 0].flatten(1).sum(1).exp())
    expected = torch.stack(of_masks).mean(0).log()
    found = model.log_likelihood(x, generator=torch.Generator()).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def _slowly(model, num_samples, generator):
    """Sub-pixels drawn one after another, each from a pass of the whole network: (N, C, H, W) int64."""
    C, H, W = model.spec.shape
    network = model.pixels
    mask = torch.randint(len(network.masks), (num_samples,), generator=generator)
    uniforms = torch.rand((num_samples, C * H * W), generator=generator)
    codes = torch.zeros((num_samples, C, H, W), dtype=torch.int64)
    for row in range(num_samples):
        for dim in network.masks[mask[row]].order:
            place, c = divmod(dim, C)
            i, j = divmod(place, W)
            with torch.no_grad():
                logits = network(codes[row : row + 1], int(mask[row]))[:, :, c, i, j]
            codes[row, c, i, j] = draw(logits, uniforms[row, dim : dim + 1])[0]
    return codes


@pytest.mark.parametrize(
    ("shape", "levels", "settings"),
    [
        ((1, 8, 8), 2, {}),
        ((3, 4, 4), 256, {}),
        ((3, 3, 5), 17, {"num_layers": 3, **SHUFFLED}),
        ((2, 1, 6), 2, {"num_layers": 1, **SHUFFLED}),
        ((1, 1, 1), 3, SMALL),
    ],
)
def test_incremental_and_slow_drawing_draw_the_same(shape, levels, settings):
    model = shaken(built(MADE, shape, levels, **settings), by=0.05)
    drawn = model.sample(6, generator=torch.Generator().manual_seed(7))
    slow = _slowly(model, 6, torch.Generator().manual_seed(7))
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn.long(), slow)
    if math.prod(shape) > 1:
        assert not torch.equal(drawn, model.sample(6, generator=torch.Generator().manual_seed(8)))


@pytest.mark.parametrize(("levels", "shape", "settings"), [(3, (1, 2, 2), SHUFFLED), (2, (2, 2, 1), SMALL)])
def test_samples_follow_the_enumerated_law(levels, shape, settings):
    model = shaken(built(MADE, shape, levels, **settings))
    images = every_image(levels, shape)
    deviations = law_of_draws(model, images, model.log_likelihood(images, generator=torch.Generator()).exp(), 20_000)
    assert deviations.max() < 4.5**2  # of 81 nearly normal deviates: P < 1e-3
    assert deviations.mean() < 1.6


def test_two_levels_start_at_the_share_of_ones_of_each_sub_pixel():
    model = built(MADE, (1, 2, 2), 2, **SMALL)
    x = torch.zeros(8, 1, 2, 2, dtype=torch.uint8)
    x[:, 0, 0, 1] = 1
    model.prepare(Batch(x))
    torch.testing.assert_close(model.pixels.out.bias.sigmoid(), torch.tensor([0.1, 0.9, 0.1, 0.1]))


@pytest.mark.parametrize("levels", [2, 7])
def test_the_loss_is_the_mean_likelihood_per_sub_pixel_and_reaches_every_parameter(levels):
    model = shaken(built(MADE, (3, 4, 4), levels))
    x = torch.randint(levels, (16, 3, 4, 4)).to(torch.uint8)
    loss = model.loss(Batch(x), "model").total
    mean = model.log_likelihood(x, generator=torch.Generator()).mean() / 48
    assert loss.item() == pytest.approx(-mean.item(), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_orders_are_the_same_wherever_the_model_is_built():
    one, other = (built(MADE, (1, 4, 4), 2, seed=seed, **SHUFFLED) for seed in (0, 1))
    assert [numbers.order for numbers in one.pixels.masks] == [numbers.order for numbers in other.pixels.masks]


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "steps", "lr"), [(2, 250, 1e-2), (256, 150, 2e-3)])
def test_training_learns_the_law_of_squares_and_draws_them(levels, steps, lr):
    x = squares(512, (1, 8, 8), levels)
    model = built(MADE, (1, 8, 8), levels)
    losses = fit(model, x, steps=steps, lr=lr)
    assert losses[-1] < 0.2 * losses[0]
    drawn = model.sample(64, generator=torch.Generator().manual_seed(0))
    clean = ((drawn == 0) | (drawn == levels - 1)).flatten(1).all(1)
    size = (drawn == levels - 1).flatten(1).sum(1)
    assert (clean & (size == 9)).float().mean() > 0.5
