"""Image GPT as a model: exact probabilities, causality in raster order, caches, conditions, a loss that falls."""

import itertools
import math

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.transformer.image_gpt import ImageGPT
from genbench.nn._categorical_head import draw
from genbench.nn.gated_pixelcnn import OrderedLevels

TINY = {"width": 16, "inner_width": 16, "num_layers": 2}


def _made(shape=(3, 8, 8), levels=256, preset="smoke", num_classes=0, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=shape, levels=levels, num_classes=num_classes)
    model = build_model(MODELS.get("image_gpt"), spec, preset=preset, settings=settings, owner="image_gpt")
    assert isinstance(model, ImageGPT)
    return model


def _awake(model):
    """Away from the start, where all levels are nearly as likely."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _images(shape, levels, count=4):
    return torch.randint(0, levels, (count, *shape), generator=_generator(), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("shape", "levels", "patch"),
    [((1, 2, 2), 3, 1), ((1, 2, 2), 3, 2), ((1, 2, 2), 3, 0), ((3, 1, 2), 3, 1), ((2, 2, 2), 2, 1), ((2, 2, 2), 2, 2)],
)
def test_probabilities_of_all_images_sum_to_one(shape, levels, patch):
    model = _awake(_made(shape, levels, patch=patch, **TINY)).double()
    every = torch.tensor(list(itertools.product(range(levels), repeat=math.prod(shape)))).view(-1, *shape)
    log_likelihood = model.log_likelihood(every.to(torch.uint8), generator=_generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_likelihood.std() > 0.1


@pytest.mark.parametrize("patch", [0, 1, 2])
def test_tokens_are_in_raster_order_with_channels_last_and_come_back(patch):
    model, x = _made((3, 4, 6), 256, patch=patch, **TINY), _images((3, 4, 6), 256)
    tokens = model.tokens(x)
    assert torch.equal(model.images(tokens), x)
    side = max(1, patch)
    if patch:
        assert tokens.shape == (4, 24 // patch**2, 3 * patch**2)
    flat = tokens.flatten(1)
    place = 0
    for top, left in itertools.product(range(0, 4, side), range(0, 6, side)):
        for i, j, c in itertools.product(range(side), range(side), range(3)):
            assert torch.equal(flat[:, place], x[:, c, top + i, left + j].long())
            place += 1


@pytest.mark.parametrize("patch", [0, 1, 2])
def test_a_change_of_one_level_moves_all_logits_after_it_and_no_others(patch):
    model = _awake(_made((2, 4, 4), 7, patch=patch, **TINY)).double()
    x = _images((2, 4, 4), 7, count=1)
    tokens = model.tokens(x).contiguous()
    with torch.no_grad():
        before = model.pixels(tokens).reshape(32, 7)
        for changed in range(32):
            other = tokens.clone()
            other.view(-1)[changed] = (other.view(-1)[changed] + 3) % 7
            moved = (model.pixels(other).reshape(32, 7) - before).abs().amax(1) > 1e-10
            assert moved.tolist() == [place > changed for place in range(32)]


@pytest.mark.parametrize("patch", [0, 1, 2])
def test_no_logit_has_a_gradient_of_its_own_or_a_later_sub_pixel(patch):
    """Every sub-pixel has a level of its own, and with it a row of its own of the features of levels."""
    model = _awake(_made((2, 4, 4), 32, patch=patch, **TINY)).double()
    tokens = model.tokens(torch.randperm(32, generator=_generator()).view(1, 2, 4, 4))
    tables = [part.table.requires_grad_() for part in model.modules() if isinstance(part, OrderedLevels)]
    logits, levels = model.pixels(tokens).reshape(32, 32), tokens.flatten()
    for place in range(32):
        slopes = torch.autograd.grad((logits[place] * torch.randn(32)).sum(), tables, retain_graph=True)
        seen = sum(slope.abs().sum(1) for slope in slopes)[levels] > 0
        assert seen.tolist() == [other < place for other in range(32)]


@pytest.mark.parametrize("patch", [0, 1, 2])
@pytest.mark.parametrize("cache", ["growing", "fixed"])
def test_cached_samples_are_those_of_one_whole_pass_for_each_sub_pixel(patch, cache):
    model, count = _awake(_made((2, 4, 4), 7, patch=patch, **TINY)), 8
    found = model.images(model.pixels.sample(count, generator=_generator(3), cache=cache))
    blank = model.tokens(torch.zeros(count, 2, 4, 4, dtype=torch.uint8))
    tokens = blank.clone(memory_format=torch.contiguous_format)
    uniforms = torch.rand(blank.shape, generator=_generator(3)).view(count, -1)
    with torch.no_grad():
        for place in range(32):
            logits = model.pixels(tokens).reshape(count, 32, 7)[:, place]
            tokens.view(count, -1)[:, place] = draw(logits, uniforms[:, place])
    assert torch.equal(found, model.images(tokens))
    assert len(found.flatten(1).unique(dim=0)) == count


@pytest.mark.parametrize(
    ("shape", "levels", "settings"),
    [
        ((1, 8, 8), 2, {}),
        ((1, 28, 28), 256, {"patch": 4}),
        ((3, 16, 16), 17, {"patch": 2}),
        ((1, 4, 4), 256, {"patch": 0}),
    ],
)
def test_any_size_and_number_of_levels_has_a_loss_and_a_likelihood(shape, levels, settings):
    model, x = _made(shape, levels, **TINY, **settings).eval(), _images(shape, levels)
    log_likelihood = model.log_likelihood(x, generator=_generator())
    loss = model.loss(Batch(x), "model").total
    assert loss.item() == pytest.approx(-log_likelihood.mean().item() / math.prod(shape), rel=1e-4)
    assert loss.item() == pytest.approx(math.log(levels), rel=0.1)  # near uniform before training


def test_a_class_moves_the_law_and_the_likelihood_is_that_without_one():
    model = _awake(_made((1, 4, 4), 7, num_classes=3, condition="class", **TINY))
    x = _images((1, 4, 4), 7)
    tokens = model.tokens(x)
    of_classes = [model.pixels.log_prob(tokens, model.conditioner(torch.full((4,), y))) for y in range(3)]
    assert (of_classes[0] - of_classes[1]).abs().min() > 1e-3
    nothing = model.pixels.log_prob(tokens, model.conditioner.nothing.expand(4, -1))
    torch.testing.assert_close(model.log_likelihood(x, generator=_generator()), nothing.detach())
    drawn = [model.sample_given(torch.full((4,), y), generator=_generator()) for y in (0, 1)]
    assert not torch.equal(*drawn)
    assert model.condition_kind == "class"


def test_patches_that_do_not_tile_the_image_and_vectors_are_refused():
    with pytest.raises(SettingError, match="patches of 3 px do not tile 8 x 8 px"):
        _made(patch=3)
    with pytest.raises(SettingError, match="`image_gpt` models images of integers"):
        ImageGPT(DataSpec(kind="vector", shape=(2,), levels=None), ImageGPT.Config())
    with pytest.raises(SettingError, match="`image_gpt` cannot be conditioned on `class`"):
        _made(condition="class")


@pytest.mark.slow
@pytest.mark.parametrize("patch", [1, 4])
def test_a_trained_model_needs_fewer_nats_than_a_histogram_and_draws_what_it_was_told(patch):
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    torch.manual_seed(0)
    settings = {"condition": "class", "patch": patch}
    model = build_model(ImageGPT, data.spec, preset="smoke", settings=settings, owner="image_gpt")
    train(model, data.load("train", range(2048)), samples_seen=4000, seed=0)
    x = data.load("test", range(128)).x
    shares = x.flatten().bincount(minlength=256) / x.numel()
    entropy = torch.special.entr(shares).sum().item()
    nats = -model.log_likelihood(x, generator=_generator()).mean().item() / model.spec.num_dims
    assert nats < 0.85 * entropy
    drawn = model.sample(16, generator=_generator())
    assert drawn.flatten(2).float().std(2).mean() > 5.0
