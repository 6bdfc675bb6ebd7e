"""Flamingo: its language model to the last bit while gates are shut, one picture for each word, shots through texts."""

import pytest
import torch

from genbench.core.dataset import DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.features import build_features
from genbench.core.model import MODELS, build_model
from genbench.core.spec import Ref, parse_ref
from genbench.core.texts import counted, questions_of
from genbench.nn.transformer import causal

DATA = build_dataset(parse_ref("captioned_shapes[resolution=8]"))


def _model(*, open_gates: bool, **settings):
    torch.manual_seed(0)
    kind = MODELS.get("flamingo")
    model = build_model(kind, DATA.spec, preset="smoke", settings=settings, owner="flamingo").eval()
    if open_gates:
        for layer in model.gated:
            layer.attention_gate.data.fill_(0.8)
            layer.dense_gate.data.fill_(0.3)
    return model


def _language_alone(tokens):
    """Logits of the shipped language model, computed without the model's own code for rows."""
    language = build_features(parse_ref("shapes_language"))
    x = language.embed(tokens)
    for number in range(language.num_layers):
        x = language.layer(number, x, causal)
    return language.logits(x)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_with_shut_gates_logits_are_those_of_the_language_model_to_the_last_bit(every):
    model, batch = _model(open_gates=False, gated_every=every), DATA.load("test", range(3))
    tokens = model.rows(batch.x)
    assert torch.equal(model(tokens, batch.pictures), _language_alone(tokens))


def test_open_gates_let_pictures_through():
    model, batch = _model(open_gates=True), DATA.load("test", range(2))
    tokens = model.rows(batch.x)
    assert not torch.equal(model(tokens, batch.pictures), _language_alone(tokens))


def test_a_word_sees_the_last_picture_before_it_alone():
    """Gradients of logits with respect to what the resampler keeps, with words that cannot pass it on."""
    model, batch = _model(open_gates=True), DATA.load("test", [0])
    R, step = model.config.num_latents, model.length + 1
    latents = model.latents(batch.pictures).detach().requires_grad_()
    alone = [lambda q, k, v: v] * model.language.num_layers  # every word attends to itself
    states = model._states(model.rows(batch.x), latents, alone)
    for item in range(model.num_items):
        for place in (0, step - 1):
            (slope,) = torch.autograd.grad(states[0, item * step + place].sum(), latents, retain_graph=True)
            reached = slope[0].unflatten(0, (-1, R)).abs().sum((1, 2)) > 0
            assert reached.nonzero().flatten().tolist() == [item]


def test_no_word_depends_on_a_later_picture_or_word():
    model, batch = _model(open_gates=True), DATA.load("test", range(2))
    tokens, step = model.rows(batch.x), model.length + 1
    before = model(tokens, batch.pictures)
    pictures, changed = batch.pictures.clone(), tokens.clone()
    pictures[:, 4:] = 255 - pictures[:, 4:]
    changed[:, 4 * step + 1 :] = 2
    after = model(changed, pictures)
    torch.testing.assert_close(after[:, : 4 * step], before[:, : 4 * step])
    assert not torch.allclose(after[:, 4 * step :], before[:, 4 * step :], atol=1e-3)


def test_words_before_the_first_picture_see_none():
    model, batch = _model(open_gates=True), DATA.load("test", range(2))
    tokens = model.rows(batch.x[:, :2])
    tokens[:, 0] = 0  # the first text has no mark, so the one picture is that of the second
    first, other = (model(tokens, pictures) for pictures in (batch.pictures[:, :1], batch.pictures[:, 1:2]))
    step = model.length + 1
    assert torch.equal(first[:, :step], other[:, :step])
    assert not torch.allclose(first[:, step:], other[:, step:], atol=1e-4)


def test_texts_written_with_kept_keys_are_those_written_without():
    model, batch = _model(open_gates=True), DATA.load("test", range(6))
    for shots in (0, 3):
        pictures, texts = batch.pictures[:, -shots - 1 :], batch.x[:, -shots - 1 :].clone()
        texts[:, -1] = questions_of(texts[:, -1], DATA.spec.vocabulary)
        said, naive = model.describe(pictures, texts, generator=None), texts.clone()
        for place in range(model.length):
            logits = model(model.rows(naive), pictures)[:, -model.length - 1 + place]
            open_ = (texts[:, -1, place] == 0) & ((place == 0) | (naive[:, -1, max(place - 1, 0)] != 0))
            naive[:, -1, place] = torch.where(open_, logits.argmax(1).to(torch.uint8), texts[:, -1, place])
        assert torch.equal(said, naive[:, -1])


def test_the_log_likelihood_is_the_sum_over_what_counts_of_the_last_text():
    model, batch = _model(open_gates=True), DATA.load("test", range(5))
    found = model.text_log_likelihood(batch.pictures, batch.x)
    logits = model(model.rows(batch.x), batch.pictures)[:, -model.length - 1 : -1].log_softmax(2)
    each = logits.gather(2, batch.x[:, -1].long()[:, :, None])[:, :, 0]
    expected = (each * counted(batch.x[:, -1], DATA.spec.vocabulary)).sum(1)
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=1e-5)


def test_only_what_stands_between_the_frozen_networks_is_trained_and_kept():
    model = _model(open_gates=False)
    trained = {id(p) for phase in model.phases() for module in phase.players[0].modules for p in module.parameters()}
    assert trained == {id(p) for p in model.parameters()}
    assert not any("network" in name for name in model.state_dict())
    assert _model(open_gates=False, gated_every=0).phases() == ()


def test_data_with_other_words_are_refused():
    spec = DataSpec(kind="text", shape=(2, 3), levels=3, vocabulary=("", "a", "b"), picture_shape=(3, 8, 8))
    with pytest.raises(SettingError, match="other words"):
        build_model(MODELS.get("flamingo"), spec, preset="smoke", settings={}, owner="flamingo")
    images = build_dataset(Ref(name="shapes")).spec
    with pytest.raises(SettingError, match="pictures with texts"):
        build_model(MODELS.get("flamingo"), images, preset="smoke", settings={}, owner="flamingo")
