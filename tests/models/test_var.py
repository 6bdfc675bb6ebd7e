"""Codes of all scales as a normalised law, block-causal, drawn with caches; guidance; pictures are learned."""

import itertools
import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.transformer.var import VAR, rising_sides
from genbench.nn._categorical_head import draw
from genbench.nn.causal_transformer import most_probable
from genbench.prob.pixels import to_signed


def _generator(seed=0):
    return Generator().manual_seed(seed)


def _made(channels=3, side=8, levels=256, num_classes=0, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=(channels, side, side), levels=levels, num_classes=num_classes)
    model = build_model(MODELS.get("var"), spec, preset="smoke", settings=settings, owner="var")
    assert isinstance(model, VAR)
    return model


def _awake(model):
    """Away from the start, where the layers of the transformer pass nothing on."""
    torch.manual_seed(7)
    for parameter in model.prior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _images(channels=3, side=8, levels=256, count=4):
    return torch.randint(0, levels, (count, channels, side, side), generator=_generator(), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("finest", "asked", "expected"),
    [
        (4, "", [1, 2, 4]),
        (7, "", [1, 2, 4, 7]),
        (1, "", [1]),
        (16, "1x2x3x4x5x6x8x10x13x16", [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]),
        (2, "1x2x3x4x5x6x8x10x13x16", [1, 2]),
        (9, "1x3", [1, 3, 9]),
    ],
)
def test_grids_rise_to_the_finest(finest, asked, expected):
    assert rising_sides(finest, asked) == expected


def test_sides_that_are_no_numbers_are_refused():
    with pytest.raises(SettingError, match="expected numbers joined by `x`"):
        _made(sides="1,2")


def test_probabilities_of_all_codes_sum_to_one():
    model = _awake(_made(side=4, num_codes=3)).double()  # 1 + 4 codes
    every = torch.tensor(list(itertools.product(range(3), repeat=5)))
    log_probs = model.log_prob_of_codes(every)
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_probs.std() > 0.1


def test_samples_follow_the_probabilities():
    model, count = _awake(_made(side=4, num_codes=2)), 20_000
    every = torch.tensor(list(itertools.product(range(2), repeat=5)))
    expected = model.log_prob_of_codes(every).exp()
    draws = model.drawn(count, None, generator=_generator()) @ torch.tensor([16, 8, 4, 2, 1])
    found = torch.bincount(draws, minlength=32) / count
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread + 1e-9).all())


def test_a_change_of_one_code_moves_the_logits_of_all_later_scales_and_no_others():
    model = _awake(_made()).double()  # 1 + 4 + 16 codes
    scales = torch.tensor([0] + [1] * 4 + [2] * 16)
    codes = torch.randint(64, (1, 21), generator=_generator())
    with torch.no_grad():
        before = model.prior(model._inputs(codes))
        for changed in range(21):
            other = codes.clone()
            other[0, changed] = (other[0, changed] + 1) % 64
            moved = (model.prior(model._inputs(other)) - before)[0].abs().amax(1) > 1e-10
            assert torch.equal(moved, scales > scales[changed])


@pytest.mark.parametrize("cache", ["growing", "fixed"])
@pytest.mark.parametrize(("guidance", "top_k"), [(0.0, 0), (2.0, 0), (0.0, 3)])
def test_cached_draws_are_those_of_one_whole_pass_for_each_scale(cache, guidance, top_k):
    model = _awake(_made(num_classes=3, condition="class", guidance=guidance, top_k=top_k))
    torch.nn.init.normal_(model.conditioner.embedding.weight)
    count = 6
    told = model.conditioner(torch.arange(count) % 3)
    found = model.drawn(count, told, generator=_generator(3), cache=cache)
    uniforms = torch.rand(count, 21, generator=_generator(3))
    codes = torch.zeros(count, 21, dtype=torch.int64)
    with torch.no_grad():
        for k, (begin, end) in enumerate([(0, 1), (1, 5), (5, 21)]):
            inputs = model._inputs(codes)
            with_it, without = model.prior(inputs, told), model.prior(inputs, model.conditioner.no_condition(count))
            logits = with_it + guidance * k / 2 * (with_it - without)
            logits = most_probable(logits[:, begin:end].flatten(0, 1), top_k)
            codes[:, begin:end] = draw(logits, uniforms[:, begin:end].flatten()).view(count, -1)
    assert torch.equal(found, codes)


def test_guidance_evaluates_two_rows_a_sample_and_scales_are_steps():
    rows = []
    for guidance, factor in ((0.0, 1), (1.5, 2)):
        model = _awake(_made(num_classes=3, condition="class", guidance=guidance))
        model.network.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
        model.sample_given(torch.tensor([0, 1, 2]), generator=_generator())
        assert rows == [3 * factor] * 3
        rows.clear()


def test_the_loss_of_the_first_stage_adds_both_pulls():
    model, x = _made(revival_share=0.0), _images()
    model.prepare(Batch(x))
    real, features = to_signed(x, 256), model._features(x)
    quantised = model.quantizer(features)
    fake = model.decoder(quantised.values)
    pairs = zip(model.critic.discriminator.features(fake), model.critic.discriminator.features(real), strict=True)
    perceptual = torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()
    expected = (real - fake).abs().mean() + perceptual + 1.25 * quantised.commitment
    torch.testing.assert_close(model.loss(Batch(x), "autoencoder").total, expected)


def test_the_prior_is_trained_on_the_codes_of_frozen_scales():
    model, x = _made(), _images()
    model.prepare(Batch(x))
    loss = model.loss(Batch(x), "prior")
    expected = -model.log_prob_of_codes(model.encode(x)).mean() / 21
    torch.testing.assert_close(loss.total.detach(), expected)
    assert loss.total.item() == pytest.approx(math.log(64), abs=0.1)
    loss.total.backward()
    touched = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"prior"}


@pytest.mark.parametrize(("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2)])
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels):
    model, x = _made(channels, side, levels).eval(), _images(channels, side, levels)
    codes = model.encode(x)
    assert codes.shape == (4, model.quantizer.length)
    assert torch.equal(model.decode(codes), model.reconstruct(x))
    images = model.sample(4, generator=_generator())
    assert images.shape == x.shape
    assert images.dtype == torch.uint8
    assert int(images.max()) < levels


@pytest.mark.slow
def test_pictures_come_back_and_the_prior_needs_less_than_the_codes_frequencies():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _made()
    train(model, data.load("train", range(2048)), samples_seen=12_000, seed=0)
    x = data.load("test", range(256)).x
    codes = model.encode(x)
    shares = codes.flatten().bincount(minlength=64) / codes.numel()
    entropy = torch.special.entr(shares).sum().item()
    assert entropy > 2.0
    nats = -model.log_prob_of_codes(codes).mean().item() / 21
    assert nats < entropy - 0.3
    error = (to_signed(model.reconstruct(x), 256) - to_signed(x, 256)).abs().mean()
    spread = (to_signed(x, 256) - to_signed(x, 256).mean(0)).abs().mean()
    assert error < 0.5 * spread
