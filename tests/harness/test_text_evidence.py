"""What is gathered of texts, for models and controls; who can be asked at all; and what the controls say."""

import dataclasses

import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.metric import Evidence, Need, build_metric
from genbench.core.model import MODELS, build_model
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.networks import Networks, Roles
from genbench.harness.applicable import why_not
from genbench.harness.controls import control_samples
from genbench.harness.said_texts import asked_about, said, told_apart, why_no_texts
from genbench.harness.text_evidence import described, gather_texts, shots_of
from genbench.plan import Selection, load_suite, make_plan

DATA = build_dataset(parse_ref("captioned_shapes[resolution=8]"))
NEEDS = frozenset({Need.TEXTS, Need.TEXT_LIKELIHOOD})


def _cell():
    plan = make_plan(load_suite("captioning"), Selection(tier="smoke"), version="0")
    cell = plan.cells[0]
    return cell.model_copy(update={"protocol": cell.protocol.model_copy(update={"num_likelihood": 12})})


def _model(name: str):
    torch.manual_seed(0)
    return build_model(MODELS.get(name), DATA.spec, preset="smoke", settings={}, owner=name).eval()


def _control(name: str, count: int = 300):
    texts = DATA.load("test", range(count)).x
    return control_samples(name, texts, texts, DATA.spec, generator=torch.Generator())


def _scores(evidence):
    metrics = [build_metric(Ref(name=name)) for name in ("text_match", "text_accuracy")]
    return {s.name: s.value for metric in metrics for s in metric.compute(Evidence(texts=evidence))}


def test_true_texts_are_right_in_everything_and_those_of_other_pictures_in_little():
    real = _scores(gather_texts(NEEDS, _cell(), DATA, _control("real"), None))
    other = _scores(gather_texts(NEEDS, _cell(), DATA, _control("shuffled_texts"), None))
    assert set(real.values()) == {1.0}
    assert max(value for name, value in other.items() if "match" in name) < 0.1
    assert max(value for name, value in other.items() if "accuracy" in name) < 0.5
    assert len(real) == 5 * (2 + 5)


def test_a_control_has_no_likelihood_and_models_have_one_for_each_number_of_shots():
    assert gather_texts(NEEDS, _cell(), DATA, _control("real"), None).nats is None
    found = gather_texts(NEEDS, _cell(), DATA, torch.empty(0), _model("flamingo"))
    assert found.nats.shape == (5, 12)
    assert found.nats.dtype == torch.float64
    assert found.shots == shots_of(DATA) == (8, 4, 2, 1, 0)
    assert (found.num_tokens > 0).all()


def test_the_true_text_is_never_shown_to_the_model_beyond_its_question():
    model, batch = _model("flamingo"), DATA.load("test", range(16))
    changed = batch.x.clone()
    for i, text in enumerate(changed[:, -1]):
        mark = text.tolist().index(DATA.spec.vocabulary.index("?"))
        changed[i, -1, mark + 1 :] = 0
    again = described(model, dataclasses.replace(batch, x=changed), shots=2)
    assert torch.equal(again, described(model, batch, shots=2))


def test_who_says_nothing_of_pictures_is_not_asked():
    networks = Networks(Roles(features=Ref(name="shapes_net")))
    match, nll = (build_metric(Ref(name=name)) for name in ("text_match", "text_nll"))
    assert why_not(match, _model("captioner"), DATA, networks) is None
    assert why_not(match, None, DATA, networks) is None
    assert why_not(nll, None, DATA, networks) == "a control has no likelihood"
    shapes = build_dataset(parse_ref("shapes[resolution=8]"))
    vae = build_model(MODELS.get("vae"), shapes.spec, preset="smoke", settings={}, owner="vae")
    assert why_not(match, vae, DATA, networks) == "the model says nothing of pictures"
    assert why_not(match, vae, shapes, networks) == "the data are of kind `image`, not texts"


def test_controls_are_of_one_kind_of_data():
    with pytest.raises(ValueError, match="controls are real, shuffled_texts"):
        _control("jpeg", 4)
    shapes = build_dataset(parse_ref("shapes[resolution=8]"))
    x = shapes.load("test", range(4)).x
    with pytest.raises(ValueError, match="kind `image`"):
        control_samples("shuffled_texts", x, x, shapes.spec, generator=torch.Generator())


def test_texts_to_be_looked_at_are_those_that_are_scored():
    model, asked = _model("captioner"), asked_about(DATA, 3)
    found = said(model, DATA, asked)
    assert list(found) == [0, 1, 2, 4, 8]
    texts = described(model, DATA.load("test", range(3)), shots=4)
    assert found[4] == [DATA.spec.caption(text) for text in texts]
    assert asked.pictures.shape == (3, 3, 8, 8)
    assert list(told_apart(found)) == ["any number of shots"]  # this model reads none
    assert told_apart(found)["any number of shots"] == found[4]
    other = {0: ["red"], 1: ["a disc"], 2: ["red"]}
    assert told_apart(other) == {"0 shots": ["red"], "1 shot": ["a disc"], "2 shots": ["red"]}
    assert why_no_texts(model, DATA) is None
    assert why_no_texts(None, build_dataset(Ref(name="shapes"))) == "no texts in this run"
