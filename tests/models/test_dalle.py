"""Words and codes in one sequence: alphabets, losses, caches, ranking, and that pictures depend on their captions."""

import itertools
import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.features import build_features
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.transformer.dalle import DALLE
from genbench.nn._categorical_head import draw

WORDS = ("", "red", "blue", "square", "circle")
CAPTIONS = torch.tensor([[1, 3, 0], [2, 4, 0], [1, 4, 3], [2, 0, 0]])


def _generator(seed=0):
    return Generator().manual_seed(seed)


def _made(side=8, levels=256, vocabulary=WORDS, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=(3, side, side), levels=levels, vocabulary=vocabulary)
    settings = {"caption_length": 4} | settings
    model = build_model(MODELS.get("dalle"), spec, preset="smoke", settings=settings, owner="dalle")
    assert isinstance(model, DALLE)
    return model


def _awake(model):
    """Away from the start, where all elements are nearly as likely."""
    torch.manual_seed(7)
    for parameter in model.prior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _batch(count=4):
    x = torch.randint(0, 256, (count, 3, 8, 8), generator=_generator(), dtype=torch.uint8)
    return Batch(x, text=CAPTIONS[:count])


def test_words_are_put_first_and_each_empty_place_has_a_padding_of_its_own():
    model = _made()
    expected = [[1, 3, 7, 8], [2, 4, 7, 8], [1, 4, 3, 8], [2, 6, 7, 8]]  # 5 words, padding 5 .. 8, codes from 9 on
    assert model.elements(CAPTIONS).tolist() == expected
    assert model.elements(torch.tensor([[1, 2, 3, 4, 0, 0]])).tolist() == [[1, 2, 3, 4]]
    with pytest.raises(ValueError, match="more than the 4 words"):
        model.elements(torch.tensor([[1, 2, 3, 4, 1]]))


def test_probabilities_of_all_pairs_sum_to_one():
    model = _awake(_made(side=2, num_codes=3, caption_length=2)).double()  # one code
    sequences = list(itertools.product(range(5 + 2 + 3), repeat=3))
    log_p = model.logits(torch.tensor(sequences)).log_softmax(2)
    total = log_p.gather(2, torch.tensor(sequences)[..., None]).sum((1, 2))
    assert total.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    allowed = [y1 in {1, 2, 3, 4, 5} and y2 in {1, 2, 3, 4, 6} and z >= 7 for y1, y2, z in sequences]
    assert torch.equal(total.isfinite(), torch.tensor(allowed))


def test_an_element_depends_on_those_before_it_alone():
    model = _awake(_made(side=4)).double()
    sequences = model.drawn(1, None, generator=_generator())
    with torch.no_grad():
        before = model.prior(sequences)
        for changed in range(sequences.shape[1]):
            other = sequences.clone()
            other[0, changed] = (other[0, changed] + 1) % model.prior.num_levels
            moved = (model.prior(other) - before)[0].abs().amax(1) > 1e-10
            assert moved.tolist() == [place > changed for place in range(sequences.shape[1])]


@pytest.mark.parametrize("cache", ["growing", "fixed"])
@pytest.mark.parametrize("told", [False, True])
def test_cached_draws_are_those_of_one_whole_pass_for_each_element(cache, told):
    model, count = _awake(_made()), 4
    words = model.elements(CAPTIONS) if told else None
    found = model.drawn(count, words, generator=_generator(3), cache=cache)
    uniforms = torch.rand(count, 20, generator=_generator(3))
    expected = torch.zeros(count, 20, dtype=torch.int64)
    with torch.no_grad():
        for place in range(20):
            drawn = draw(model.logits(expected)[:, place], uniforms[:, place])
            expected[:, place] = words[:, place] if told and place < 4 else drawn
    assert torch.equal(found, expected)
    codes = found[:, 4:] - model.first_code
    assert 0 <= int(codes.min()) <= int(codes.max()) < 64


def test_the_prior_weighs_words_and_codes_as_the_paper_does():
    model, batch = _awake(_made()), _batch()
    sequences = torch.cat([model.elements(batch.text), model.encode(batch.x).flatten(1) + model.first_code], dim=1)
    log_p = model.logits(sequences).log_softmax(2).gather(2, sequences[..., None])[..., 0]
    loss = model.loss(batch, "prior")
    torch.testing.assert_close(loss.total, -(log_p[:, :4].mean() / 8 + log_p[:, 4:].mean() * 7 / 8))
    loss.total.backward()
    touched = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"prior"}


def test_the_first_stage_is_a_bound_with_a_rate_whose_weight_rises_while_the_temperature_falls():
    model, batch = _made(kl_weight=2.0, kl_steps=10, temperature_steps=20), _batch()
    model.prepare(batch)
    temperatures = []
    for step in range(25):
        torch.manual_seed(step)
        loss = model.loss(batch, "codes")
        beta = 2.0 * min(1.0, step / 10)
        torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + beta * loss.parts["rate"])
        temperatures.append(loss.parts["temperature"].item())
    assert temperatures[0] == 1.0
    assert temperatures[10] == pytest.approx((1 + 1 / 16) / 2)
    assert temperatures[20] == temperatures[24] == pytest.approx(1 / 16)
    model.eval().loss(batch, "codes")
    assert model.steps_taken.item() == 25


def test_a_captioned_sample_depends_on_its_text_and_one_without_has_a_caption_drawn():
    model = _awake(_made())
    drawn = [model.sample_given(CAPTIONS[[row] * 4], generator=_generator()) for row in (0, 1)]
    assert not torch.equal(*drawn)
    assert torch.equal(drawn[0], model.sample_given(CAPTIONS[[0] * 4], generator=_generator()))
    words = model.drawn(64, None, generator=_generator())[:, :4]
    assert len(words.unique(dim=0)) > 16
    assert model.condition_kind == "text"


def test_of_several_candidates_the_nearest_to_its_caption_is_kept():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    vocabulary, text = data.spec.vocabulary, data.load("test", range(3)).text
    model = _awake(_made(vocabulary=vocabulary, caption_length=12, candidates=4))
    found = model.sample_given(text, generator=_generator())
    generator = _generator()
    words = model.elements(text)
    drawn = torch.stack([model._pictures(model.drawn(3, words, generator=generator)) for _ in range(4)])
    clip = build_features(parse_ref("shapes_clip"))
    spoken = clip.encode_text([data.spec.caption(tokens) for tokens in text])
    for row in range(3):
        cosines = torch.cosine_similarity(clip(drawn[:, row]), spoken[row], dim=1)
        assert torch.equal(found[row], drawn[cosines.argmax(), row])
    assert set(model.state_dict()) == set(_made(vocabulary=vocabulary, caption_length=12).state_dict())


def test_data_without_captions_are_refused_by_name():
    with pytest.raises(SettingError, match="`dalle` learns from pictures with captions"):
        _made(vocabulary=())
    with pytest.raises(SettingError, match="no caption to learn from"):
        _made().loss(Batch(_batch().x), "prior")
    with pytest.raises(ValueError, match="`dalle` needs images of integers"):
        DALLE(DataSpec(kind="vector", shape=(2,), levels=None), DALLE.Config())


@pytest.mark.slow
def test_it_learns_which_codes_go_with_which_words():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    torch.manual_seed(0)
    model = build_model(DALLE, data.spec, preset="smoke", settings={}, owner="dalle")
    train(model, data.load("train", range(4096)), samples_seen=24_000, seed=0)
    test = data.load("test", range(256))
    assert model.encode(test.x).unique().numel() > 8
    with torch.no_grad():
        right = model.loss(test, "prior").parts["nats_per_code"].item()
        wrong = model.loss(Batch(test.x, text=test.text.roll(1, 0)), "prior").parts["nats_per_code"].item()
    assert right < 0.6 * math.log(64)
    assert wrong > right + 0.1
