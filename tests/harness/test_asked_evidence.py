"""Samples drawn for classes and captions, judged by the shipped reader of factors."""

import pytest
import torch
from tiny_cells import cell_of
from tiny_models import ClassLookup, TextLookup

from genbench.core.dataset import DataSpec
from genbench.core.errors import SampleError
from genbench.core.metric import Need
from genbench.core.spec import Ref, parse_ref
from genbench.data.shapes import HELD_OUT, Shapes
from genbench.evaluation.networks import Networks, Roles
from genbench.harness.asked_evidence import balanced_labels, caption_split, draw_given, gather_asked
from genbench.metrics.caption_accuracy import CaptionAccuracy
from genbench.metrics.class_accuracy import ClassAccuracy
from genbench.metrics.clip_score import CLIPScore

DATA = Shapes(resolution=16)
PROMPTED = frozenset({Need.FACTORS, Need.PROMPTS})


@pytest.fixture(scope="module")
def networks():
    return Networks(Roles(features=Ref(name="shapes_net"), captions=parse_ref("shapes_clip")))


def _prepared(kind, split="train"):
    model = kind(DATA.spec)
    model.prepare(DATA.load(split, range(2000, 2256)))
    return model.eval()


@pytest.mark.parametrize(("count", "expected"), [(100, 100), (103, 100), (3, 4), (4, 4)])
def test_every_class_is_asked_equally_often_and_at_least_once(count, expected):
    labels = balanced_labels(4, count)
    assert len(labels) == expected
    assert torch.bincount(labels).tolist() == [expected // 4] * 4


def test_a_model_that_looks_up_its_class_is_right_as_often_as_the_classifier(networks):
    evidence = gather_asked(frozenset({Need.LABELS}), cell_of(DATA), DATA, networks, _prepared(ClassLookup))
    (score,) = ClassAccuracy().compute(evidence)
    assert score.value >= 0.98
    assert score.num_samples == 100
    assert score.protocol["asked"] == "every class equally often"
    assert score.protocol["classifier"] == "shapes_net"
    assert evidence.factors is None


def test_a_model_that_ignores_its_class_is_right_by_chance(networks):
    model = _prepared(ClassLookup)
    model.labels.zero_()
    evidence = gather_asked(frozenset({Need.LABELS}), cell_of(DATA, 400), DATA, networks, model)
    (score,) = ClassAccuracy().compute(evidence)
    assert abs(score.value - 0.25) < 0.1


def test_captions_are_those_of_combinations_that_training_never_shows(networks):
    evidence = gather_asked(PROMPTED, cell_of(DATA), DATA, networks, _prepared(TextLookup))
    asked = evidence.factors.asked
    assert {tuple(row) for row in asked[:, :2].tolist()} == set(HELD_OUT)
    assert caption_split(DATA) == "novel"
    assert evidence.labels is None
    assert evidence.captions is None


def test_looking_up_training_pictures_shows_no_new_pair_but_most_single_factors(networks):
    evidence = gather_asked(PROMPTED, cell_of(DATA, 200), DATA, networks, _prepared(TextLookup))
    scores = {score.name: score for score in CaptionAccuracy().compute(evidence)}
    assert scores["caption_accuracy"].value <= 0.02
    assert scores["caption_accuracy_background"].value > 0.5
    assert scores["caption_accuracy"].num_samples == 200
    assert scores["caption_accuracy"].protocol["asked"] == "captions of `novel`"


def test_looking_up_pictures_of_the_novel_split_itself_shows_most_captions(networks):
    """256 pictures hold 80 % of 160 combinations; the rest is a nearest one."""
    model = _prepared(TextLookup, "novel")
    evidence = gather_asked(PROMPTED, cell_of(DATA, 200), DATA, networks, model)
    (whole, *_) = CaptionAccuracy().compute(evidence)
    assert 0.7 < whole.value < 0.95


def test_captions_are_embedded_beside_what_was_drawn_for_them(networks):
    needs = PROMPTED | {Need.CAPTIONS}
    right, wrong = (
        gather_asked(needs, cell_of(DATA), DATA, networks, _prepared(TextLookup, split), caption_prefix="")
        for split in ("novel", "train")
    )
    (good,), (poor,) = (CLIPScore().compute(evidence) for evidence in (right, wrong))
    assert good.value > poor.value
    assert good.protocol["asked"] == "captions of `novel`"
    assert (good.num_samples, good.protocol["prefix"]) == (100, "")


def test_what_is_drawn_depends_on_the_seed_alone():
    model, asked = _prepared(ClassLookup), balanced_labels(4, 300)
    torch.manual_seed(1)
    first = draw_given(model, asked, seed=0)
    torch.manual_seed(2)
    assert torch.equal(draw_given(model, asked, seed=0), first)
    assert not torch.equal(draw_given(model, asked, seed=1), first)


def test_samples_that_break_the_contract_are_refused():
    class Short(ClassLookup):
        def sample_given(self, condition, *, generator):
            return super().sample_given(condition, generator=generator)[1:]

    with pytest.raises(SampleError, match="expected"):
        draw_given(_prepared(Short), balanced_labels(4, 8), seed=0)


def test_grey_pictures_of_few_levels_are_shown_to_the_judge_in_colour():
    spec = DataSpec(shape=(1, 8, 8), levels=17, num_classes=4)
    model = ClassLookup(spec)
    model.images.fill_(16)
    assert draw_given(model, balanced_labels(4, 8), seed=0).shape == (8, 1, 8, 8)
