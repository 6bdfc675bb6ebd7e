"""Controls with captions: they bracket what models can get, by the shipped judges."""

import pytest
import torch
from tiny_cells import cell_of
from tiny_models import ClassLookup, TextLookup

from genbench.core.dataset import Batch
from genbench.core.metric import Need
from genbench.core.model import SteeredByFeatures
from genbench.core.spec import Ref, parse_ref
from genbench.data.digits import Digits
from genbench.data.shapes import HELD_OUT, Shapes
from genbench.evaluation.networks import Networks, Roles, roles_of
from genbench.harness.applicable import why_not
from genbench.harness.asked_evidence import gather_asked
from genbench.harness.caption_controls import with_captions_of
from genbench.harness.controls import control_samples
from genbench.metrics.caption_accuracy import CaptionAccuracy
from genbench.metrics.class_accuracy import ClassAccuracy
from genbench.metrics.clip_score import CLIPScore

DATA = Shapes(resolution=16)
NEEDS = frozenset({Need.FACTORS, Need.PROMPTS, Need.CAPTIONS})


@pytest.fixture(scope="module")
def networks():
    return Networks(Roles(features=Ref(name="shapes_net"), captions=parse_ref("shapes_clip")))


def _control(name):
    cell = cell_of(DATA, 300)
    return cell.model_copy(update={"role": "control", "subject": Ref(name=name)})


def _scores(name, networks, *, seen):
    evidence = gather_asked(NEEDS, _control(name), DATA, networks, None, seen=seen)
    captions = "seen" if seen else "held_out"
    metrics = (CaptionAccuracy(captions=captions), CLIPScore(captions=captions))
    return {score.name: score for metric in metrics for score in metric.compute(evidence)}


@pytest.mark.parametrize("seen", [True, False])
def test_real_pictures_are_the_ceiling_and_shuffled_captions_the_floor(networks, seen):
    real, shuffled = (_scores(name, networks, seen=seen) for name in ("real", "shuffled_captions"))
    prefix = "seen_" if seen else ""
    assert real[f"{prefix}caption_accuracy"].value >= 0.99
    assert real[f"{prefix}clip_score"].value > 0.9
    assert shuffled[f"{prefix}caption_accuracy"].value < 0.03  # 1 in 800, or in 160
    assert abs(shuffled[f"{prefix}clip_score"].value) < 0.15
    for factor, chance in (("size", 1 / 2), ("position", 1 / 5), ("background", 1 / 4)):
        found = shuffled[f"{prefix}caption_accuracy_{factor}"].value
        assert abs(found - chance) < 4 * (chance * (1 - chance) / 300) ** 0.5


def test_a_model_lies_between_the_two(networks):
    model = TextLookup(DATA.spec)
    model.prepare(DATA.load("train", range(2000, 2256)))
    evidence = gather_asked(NEEDS, cell_of(DATA, 300), DATA, networks, model.eval(), seen=True)
    (found,) = CLIPScore(captions="seen").compute(evidence)
    real, shuffled = (_scores(name, networks, seen=True) for name in ("real", "shuffled_captions"))
    assert shuffled["seen_clip_score"].value < found.value < real["seen_clip_score"].value


def test_captions_of_seen_combinations_are_none_that_training_lacks(networks):
    for seen in (True, False):
        evidence = gather_asked(NEEDS, _control("real"), DATA, networks, None, seen=seen)
        pairs = {tuple(row) for row in evidence.factors.asked[:, :2].tolist()}
        assert pairs.isdisjoint(HELD_OUT) if seen else pairs == set(HELD_OUT)
        assert evidence.captions.protocol["asked"] == ("captions of `test`" if seen else "captions of `novel`")


def test_shuffled_captions_are_all_there_and_none_stands_beside_its_own_picture():
    examples = Batch(torch.arange(50), text=torch.arange(50)[:, None], factors=torch.arange(50)[:, None])
    found = with_captions_of("shuffled_captions", examples)
    assert torch.equal(found.x, examples.x)
    assert torch.equal(found.text.sort(0).values, examples.text)
    assert not (found.text[:, 0] == found.x).any()
    assert torch.equal(found.text, found.factors)
    assert with_captions_of("real", examples) is examples
    with pytest.raises(ValueError, match="has no captions"):
        with_captions_of("blur", examples)


def test_which_metrics_apply_to_which_control(networks):
    metrics = (CaptionAccuracy(), CLIPScore(captions="seen"))
    for name, expected in (("real", None), ("shuffled_captions", None), ("blur", "nothing was asked of the samples")):
        assert {why_not(metric, None, DATA, networks, control=name) for metric in metrics} == {expected}
    assert why_not(ClassAccuracy(), None, DATA, networks, control="real") == "nothing was asked of the samples"
    assert why_not(CLIPScore(), None, Digits(), networks, control="real") == "the data have no captions"
    assert "cannot be told" in why_not(CLIPScore(), ClassLookup(DATA.spec), DATA, networks)


def test_shuffled_captions_are_of_data_that_have_some():
    held_out = DATA.load("test", range(4)).x
    generator = torch.Generator()
    assert torch.equal(
        control_samples("shuffled_captions", held_out, held_out, DATA.spec, generator=generator), held_out
    )
    digits = Digits()
    x = digits.load("test", range(4)).x
    with pytest.raises(ValueError, match="of data with captions"):
        control_samples("shuffled_captions", x, x, digits.spec, generator=generator)


class _Steered(TextLookup, SteeredByFeatures):
    """A model that some extractor is said to have steered."""

    by: str | None = None

    @property
    def steered_by(self):
        return self.by


@pytest.mark.parametrize(
    ("by", "expected"), [("shapes_clip", "steered_clip_score"), ("clip", "clip_score"), (None, "clip_score")]
)
def test_a_judge_that_steered_gives_a_score_of_another_name(networks, by, expected):
    model = _Steered(DATA.spec)
    model.prepare(DATA.load("train", range(256)))
    model.by = by
    evidence = gather_asked(NEEDS, cell_of(DATA), DATA, networks, model.eval())
    (score,) = CLIPScore().compute(evidence)
    assert score.name == expected
    assert score.protocol.get("steered_by") == ("shapes_clip" if expected.startswith("steered") else None)
    assert {score.name for score in CaptionAccuracy().compute(evidence)} >= {"caption_accuracy"}
    (seen,) = CLIPScore(captions="seen").compute(evidence)
    assert seen.name == expected.replace("clip_score", "seen_clip_score")


def test_a_cell_is_judged_by_the_encoder_that_its_suite_names():
    cell = cell_of(DATA)
    assert roles_of(cell).captions.name == "clip"
    named = roles_of(cell.model_copy(update={"text_encoder": parse_ref("shapes_clip")}))
    assert named.captions.name == "shapes_clip"
    assert "captions" in named.named
