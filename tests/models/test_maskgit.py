"""The schedule, what a step keeps, the loss by hand, and that pictures and codes are learned."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.transformer.maskgit import MaskGIT, gumbel, hidden_at_random, hidden_counts


def _generator(seed=0):
    return Generator().manual_seed(seed)


def _made(channels=3, side=8, levels=256, num_classes=0, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=(channels, side, side), levels=levels, num_classes=num_classes)
    model = build_model(MODELS.get("maskgit"), spec, preset="smoke", settings=settings, owner="maskgit")
    assert isinstance(model, MaskGIT)
    return model


def _awake(model):
    """Away from the start, where all codes are nearly as likely."""
    torch.manual_seed(7)
    for parameter in model.prior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _images(channels=3, side=8, levels=256, count=4):
    return torch.randint(0, levels, (count, channels, side, side), generator=_generator(), dtype=torch.uint8)


@pytest.mark.parametrize("places", [1, 2, 7, 16, 49, 64, 256])
@pytest.mark.parametrize("num_steps", [1, 2, 8, 12, 300])
def test_every_step_hides_fewer_places_and_the_last_none(places, num_steps):
    counts = hidden_counts(places, num_steps)
    assert len(counts) == min(places, num_steps)
    assert all(after < before for before, after in zip([places, *counts], counts, strict=False))
    assert counts[-1] == 0


def test_the_schedule_is_the_cosine_where_there_are_many_places():
    expected = [math.floor(256 * math.cos(math.pi * t / 16)) for t in range(1, 8)] + [0]
    assert hidden_counts(256, 8) == expected


@pytest.mark.parametrize("temperature", [0.0, 4.5])
@pytest.mark.parametrize("num_steps", [1, 3, 8, 40])
def test_every_code_is_shown_exactly_once_and_then_stays(num_steps, temperature):
    model = _awake(_made(num_steps=num_steps, choice_temperature=temperature))
    K, places = model.prior.mask, model.prior.length
    found = [torch.full((5, places), K), *model.filled_in(5, None, generator=_generator())]
    counts = [places, *hidden_counts(places, num_steps)]
    for before, after, count in zip(found, found[1:], counts[1:], strict=False):
        assert ((after == K).sum(1) == count).all()
        shown = before != K
        assert torch.equal(before[shown], after[shown])
    assert len(found) == len(counts)
    assert int(found[-1].max()) < K
    assert int(found[-1].min()) >= 0


def test_without_a_temperature_the_surest_draws_stay():
    model = _awake(_made(num_steps=4, choice_temperature=0.0))
    first = model.filled_in(6, None, generator=_generator())[0]
    K = model.prior.mask
    with torch.no_grad():
        log_p = model.prior(torch.full((6, 16), K)).log_softmax(2)
    u = torch.rand(2, 6, 16, generator=_generator())[0]
    cumulated = log_p.exp().cumsum(2)
    drawn = (u[..., None] * cumulated[..., -1:] >= cumulated).sum(2).clamp(max=K - 1)
    sure = log_p.gather(2, drawn[..., None])[..., 0]
    for row in range(6):
        kept = first[row] != K
        assert torch.equal(first[row][kept], drawn[row][kept])
        assert sure[row][kept].min() >= sure[row][~kept].max()


def test_a_higher_temperature_keeps_less_sure_draws():
    means = []
    for temperature in (0.0, 50.0):
        model = _awake(_made(num_steps=2, choice_temperature=temperature))
        first = model.filled_in(64, None, generator=_generator())[0]
        K = model.prior.mask
        with torch.no_grad():
            log_p = model.prior(torch.full((64, 16), K)).log_softmax(2)
        sure = log_p.gather(2, first.clamp(max=K - 1)[..., None])[..., 0]
        means.append(sure[first != K].mean().item())
    assert means[0] > means[1] + 0.2


def test_hidden_places_of_training_are_as_many_as_the_cosine_says_and_anywhere():
    torch.manual_seed(0)
    hidden = hidden_at_random(torch.zeros(4000, 16, dtype=torch.int64))
    assert int(hidden.sum(1).min()) >= 1
    torch.manual_seed(0)
    expected = torch.ceil(16 * torch.cos(math.pi / 2 * torch.rand(4000, 1)))[:, 0].long()
    assert torch.equal(hidden.sum(1), expected)
    shares = hidden.float().mean(0)
    assert (shares - 2 / math.pi).abs().max() < 0.06  # mean of the cosine, and at most a sixteenth more for `ceil`


def test_gumbel_draws_choose_as_a_softmax_does():
    logits = torch.tensor([0.0, 1.0, -1.0])
    u = torch.rand(40_000, 3, generator=_generator())
    found = F.one_hot((logits + gumbel(u)).argmax(1), 3).float().mean(0)
    torch.testing.assert_close(found, logits.softmax(0), rtol=0, atol=0.01)
    assert gumbel(torch.tensor([0.0, 1.0])).isfinite().all()


def test_the_loss_is_the_smoothed_cross_entropy_of_the_hidden_codes():
    model, x = _made(), _images()
    model.prepare(Batch(x))
    codes = model.encode(x).flatten(1)
    torch.manual_seed(3)
    found = model.loss(Batch(x), "prior")
    torch.manual_seed(3)
    hidden = hidden_at_random(codes)
    log_p = model.prior(codes.masked_fill(hidden, 64)).log_softmax(2)
    target = 0.9 * F.one_hot(codes, 64) + 0.1 / 64
    expected = -(target * log_p).sum(2)[hidden].mean()
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    touched = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"prior"}


def test_a_condition_is_learned_and_changes_what_is_drawn():
    model = _awake(_made(num_classes=3, condition="class"))
    torch.nn.init.normal_(model.conditioner.embedding.weight)
    drawn = [model.sample_given(torch.full((4,), y), generator=_generator()) for y in (0, 1)]
    assert not torch.equal(*drawn)
    batch = Batch(_images(), y=torch.tensor([0, 1, 2, 0]))
    model.train().loss(batch, "prior").total.backward()
    assert model.conditioner.embedding.weight.grad.abs().sum() > 0
    (player,) = model.phases()[-1].players
    assert {id(p) for module in player.modules for p in module.parameters()} >= {id(model.conditioner.nothing)}


def test_steps_are_evaluations_of_the_network():
    model, calls = _awake(_made(num_steps=5)), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    model.sample(2, generator=_generator())
    assert len(calls) == 5


@pytest.mark.parametrize(("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2)])
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels):
    model, x = _made(channels, side, levels).eval(), _images(channels, side, levels)
    codes = model.encode(x)
    assert codes.shape == (4, model.code_side, model.code_side)
    assert torch.equal(model.decode(codes), model.reconstruct(x))
    images = model.sample(4, generator=_generator())
    assert images.shape == x.shape
    assert images.dtype == torch.uint8
    assert int(images.max()) < levels


@pytest.mark.slow
def test_a_trained_prior_guesses_hidden_codes_better_than_their_frequencies():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _made(label_smoothing=0.0)
    train(model, data.load("train", range(2048)), samples_seen=12_000, seed=0)
    codes = model.encode(data.load("test", range(256)).x).flatten(1)
    shares = codes.flatten().bincount(minlength=64) / codes.numel()
    entropy = torch.special.entr(shares).sum().item()
    hidden = torch.zeros(16, dtype=torch.bool)
    hidden[::4] = True
    with torch.no_grad():
        logits = model.prior(codes.masked_fill(hidden, 64))[:, hidden]
    nats = F.cross_entropy(logits.flatten(0, 1), codes[:, hidden].flatten()).item()
    assert entropy > 2.0
    assert nats < entropy - 0.3
