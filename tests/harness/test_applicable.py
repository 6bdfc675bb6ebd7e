"""Reasons that are known of a model that nobody has trained."""

import pytest
from tiny_models import ClassLookup, DiagonalGaussian, TextLookup

from genbench.core.dataset import build_dataset
from genbench.core.metric import Need, build_metric
from genbench.core.model import MODELS, build_model
from genbench.core.spec import Ref, parse_ref
from genbench.data.digits import Digits
from genbench.data.shapes import Shapes
from genbench.data.toy2d import Toy2D
from genbench.evaluation.networks import Networks, Roles
from genbench.harness import applicable
from genbench.harness.applicable import why_not

SHAPES, PLANE = Shapes(resolution=8), Toy2D("gaussians8")


@pytest.fixture(scope="module")
def networks():
    return Networks(Roles(features=Ref(name="shapes_net"), captions=Ref(name="shapes_clip")))


def _shipped(name):
    return build_model(MODELS.get(name), SHAPES.spec, preset="smoke", settings={}, owner=name)


def test_every_need_has_its_reasons():
    assert set(applicable._REASONS) == set(Need)


def test_an_exact_divergence_applies_where_model_and_data_have_densities(networks):
    metric = build_metric(Ref(name="exact_kl"))
    assert why_not(metric, DiagonalGaussian(PLANE.spec), PLANE, networks) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("toy2d[law=two_moons]", "law `two_moons` has no density in closed form"),
        ("toy2d[law=spirals]", "law `spirals` has no density in closed form"),
        ("shapes[resolution=8]", "the density of the data is not known"),
    ],
)
def test_an_exact_divergence_needs_a_law_with_a_density(networks, data, reason):
    dataset = build_dataset(parse_ref(data))
    found = why_not(build_metric(Ref(name="exact_kl")), DiagonalGaussian(dataset.spec), dataset, networks)
    assert found.startswith(reason)


def test_an_exact_divergence_needs_a_likelihood_first(networks):
    metric = build_metric(Ref(name="exact_kl"))
    assert why_not(metric, None, PLANE, networks) == "a control has no likelihood"
    assert why_not(metric, _shipped("wgan_gp"), SHAPES, networks) == "the model defines no likelihood"
    assert why_not(metric, _shipped("ebm"), SHAPES, networks) == "the density is known only up to a constant"


def test_classes_can_be_asked_of_a_class_conditional_model(networks):
    metric, model = build_metric(Ref(name="class_accuracy")), ClassLookup(SHAPES.spec)
    assert why_not(metric, model, SHAPES, networks) is None
    assert why_not(metric, None, SHAPES, networks) == "nothing was asked of the samples"
    assert why_not(metric, _shipped("vae"), SHAPES, networks) == "the model cannot be told which class to draw"
    digits = Digits()
    assert "no classifier of the data is at hand" in why_not(metric, ClassLookup(digits.spec), digits, networks)


def test_captions_can_be_asked_of_a_text_conditional_model(networks):
    metric, model = build_metric(Ref(name="clip_score")), TextLookup(SHAPES.spec)
    assert why_not(metric, model, SHAPES, networks) is None
    assert why_not(metric, None, SHAPES, networks) == "nothing was asked of the samples"
    assert "cannot be told in words" in why_not(metric, ClassLookup(SHAPES.spec), SHAPES, networks)
    assert applicable._REASONS[Need.PROMPTS](model, SHAPES, networks) is None
    assert applicable._REASONS[Need.PROMPTS](model, Digits(), networks) == "the data have no captions"


def test_an_encoder_without_words_is_named():
    networks = Networks(Roles(features=Ref(name="shapes_net"), captions=Ref(name="shapes_net")))
    found = why_not(build_metric(Ref(name="clip_score")), TextLookup(SHAPES.spec), SHAPES, networks)
    assert found == "`shapes_net` embeds no captions"


def test_codes_of_a_book_have_a_rate_and_real_numbers_have_none(networks):
    metric = build_metric(Ref(name="code_rate"))
    assert why_not(metric, _shipped("vqvae"), SHAPES, networks) is None
    assert why_not(metric, _shipped("vae"), SHAPES, networks).startswith("the codes are real numbers")
    assert why_not(metric, _shipped("wgan_gp"), SHAPES, networks) == "there is no codebook"
    assert why_not(metric, None, SHAPES, networks) == "there is no codebook"


def test_reconstructions_have_features_where_there_are_codes(networks):
    metric = build_metric(Ref(name="reconstruction_frechet"))
    assert why_not(metric, _shipped("vqvae"), SHAPES, networks) is None
    assert why_not(metric, _shipped("vae"), SHAPES, networks) is None
    assert why_not(metric, _shipped("wgan_gp"), SHAPES, networks) == "nothing is encoded and decoded"
