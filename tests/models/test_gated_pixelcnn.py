"""Gated PixelCNN as a model: exact probabilities, fast reproducible samples, a loss that falls."""

import itertools
import math

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.models.autoregressive.gated_pixelcnn import GatedPixelCNN


def built(shape, levels, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=shape, levels=levels)
    return build_model(GatedPixelCNN, spec, preset="smoke", settings=settings, owner="gated_pixelcnn")


def squares(number, shape, levels):
    """Images of two levels: a square of one on the other."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(number, *shape, dtype=torch.uint8)
    for image, corner in zip(x, torch.randint(1, shape[1] // 2, (number,), generator=generator), strict=True):
        image[:, corner : corner + 3, corner : corner + 3] = levels - 1
    return x


def fit(model, x, *, steps, lr=4e-3):
    model.prepare(Batch(x))
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        loss = model.loss(Batch(x[torch.arange(32 * step, 32 * step + 32) % len(x)]), "model").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_the_name_is_registered_and_every_preset_fits_its_config():
    assert MODELS.get("gated_pixelcnn") is GatedPixelCNN
    assert set(GatedPixelCNN.presets) == {"smoke", "small", "paper"}
    assert GatedPixelCNN.likelihood_kind == "exact"


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 1, 1)])
def test_probabilities_of_all_images_sum_to_one_after_training(shape):
    model = built(shape, 3, width=6, num_layers=2, head_width=8)
    images = torch.tensor(list(itertools.product(range(3), repeat=math.prod(shape)))).view(-1, *shape)
    images = images.to(torch.uint8)
    fit(model, images[:: len(images) // 4], steps=20)
    log_likelihood = model.log_likelihood(images, generator=torch.Generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert log_likelihood.max() - log_likelihood.min() > 1.0


@pytest.mark.parametrize(
    ("shape", "levels"), [((1, 8, 8), 2), ((3, 8, 8), 256), ((1, 16, 16), 17), ((1, 28, 28), 256), ((3, 32, 32), 256)]
)
def test_any_size_and_number_of_levels_has_a_loss_and_a_likelihood(shape, levels):
    model = built(shape, levels, width=6, num_layers=2, head_width=8)
    x = torch.randint(levels, (2, *shape)).to(torch.uint8)
    log_likelihood = model.log_likelihood(x, generator=torch.Generator())
    loss = model.loss(Batch(x), "model").total
    assert log_likelihood.shape == (2,)
    assert loss.item() == pytest.approx(-log_likelihood.mean().item() / math.prod(shape), rel=1e-4)


def test_samples_are_uint8_in_range_and_repeat_with_the_generator():
    model = built((3, 8, 8), 17)
    torch.manual_seed(1)
    first = model.sample(6, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    again = model.sample(6, generator=torch.Generator().manual_seed(5))
    assert first.dtype == torch.uint8
    assert first.shape == (6, 3, 8, 8)
    assert first.max() < 17
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())


def test_preparation_brings_the_first_loss_near_the_entropy_of_the_histogram():
    x = squares(256, (1, 8, 8), 256)
    share = (x > 0).float().mean().item()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    model = built((1, 8, 8), 256)
    before = model.loss(Batch(x), "model").total.item()
    model.prepare(Batch(x))
    after = model.loss(Batch(x), "model").total.item()
    assert before > entropy + 3  # the levels in between cost nothing any more
    assert abs(after - entropy) < 0.3


def test_training_learns_the_law_of_squares_and_draws_them():
    x = squares(512, (1, 8, 8), 256)
    model = built((1, 8, 8), 256, width=16, num_layers=3, kernel_size=3, head_width=16)
    losses = fit(model, x, steps=60)
    corners = 3
    assert losses[-1] < 0.2 * losses[0]
    assert losses[-1] > 0.9 * math.log(corners) / 64  # nothing is cheaper than the entropy of the corner
    drawn = model.sample(64, generator=torch.Generator().manual_seed(0))
    clean = ((drawn == 0) | (drawn == 255)).flatten(1).all(1)
    size = (drawn == 255).flatten(1).sum(1)
    assert (clean & (size == 9)).float().mean() > 0.5


def test_weights_saved_and_loaded_draw_the_same(tmp_path):
    model, other = built((1, 8, 8), 17), built((1, 8, 8), 17)
    fit(model, squares(64, (1, 8, 8), 17), steps=3)
    other.load_state_dict(model.state_dict())
    draws = [m.sample(4, generator=torch.Generator().manual_seed(0)) for m in (model, other)]
    assert torch.equal(*draws)


def told(number):
    """Images of two classes, a square of light at the left or at the right."""
    y = torch.arange(number) % 2
    x = torch.zeros(number, 1, 8, 8, dtype=torch.uint8)
    x[y == 0, :, 3:6, 1:3] = 3
    x[y == 1, :, 3:6, 5:7] = 3
    return Batch(x, y=y)


def conditional(**settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=(1, 8, 8), levels=4, num_classes=2)
    settings = {"condition": "class", "width": 16} | settings
    return build_model(GatedPixelCNN, spec, preset="smoke", settings=settings, owner="gated_pixelcnn")


def test_the_default_knows_no_condition_and_its_player_has_the_network_alone():
    model = built((1, 8, 8), 4)
    assert model.condition_kind == "none"
    assert model.phases()[0].players[0].modules == (model.pixels,)
    with pytest.raises(SettingError, match="unconditional"):
        model.sample_given(torch.zeros(2, dtype=torch.int64), generator=torch.Generator())


def test_data_without_classes_are_refused():
    with pytest.raises(SettingError, match="cannot be conditioned"):
        built((1, 8, 8), 4, condition="class")


def test_a_conditional_model_is_a_law_without_a_condition_and_trains_every_parameter():
    model, batch = conditional(drop_condition=0.5), told(32)
    model.loss(batch, "model").total.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    small = conditional(width=4)
    torch.testing.assert_close(
        small.log_likelihood(batch.x, generator=torch.Generator()),
        small.pixels.log_prob(batch.x.long(), small.conditioner.no_condition(32)),
    )


@pytest.mark.slow
def test_training_learns_which_class_has_its_square_where():
    model, batch = conditional(drop_condition=0.1), told(512)
    model.train().prepare(batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=8e-3)
    for step in range(150):
        start = 32 * step % 512
        loss = model.loss(batch[start : start + 32], "model").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    asked = torch.arange(64) % 2
    drawn = model.sample_given(asked, generator=torch.Generator().manual_seed(0)).float()
    at_right = drawn[..., 4:].sum((1, 2, 3)) > drawn[..., :4].sum((1, 2, 3))
    assert (at_right == (asked == 1)).float().mean() > 0.9
    free = model.sample(64, generator=torch.Generator().manual_seed(0)).float()
    share = (free[..., 4:].sum((1, 2, 3)) > free[..., :4].sum((1, 2, 3))).float().mean()
    assert 0.25 < share < 0.75
