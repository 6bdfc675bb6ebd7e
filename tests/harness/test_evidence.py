"""Evidence of models: likelihoods with what is said of them, reconstructions, codes."""

import math

import numpy as np
import pytest
import torch
from tiny_cells import cell_of
from tiny_models import DiagonalGaussian

from genbench.core.metric import Need
from genbench.core.model import MODELS, build_model
from genbench.core.spec import Ref
from genbench.data.shapes import Shapes
from genbench.data.toy2d import Toy2D
from genbench.evaluation.networks import Networks, Roles
from genbench.harness.evidence import gather, subset
from genbench.metrics.mig import mig

NETWORKS = Networks(Roles(features=Ref(name="shapes_net")))


def _likelihood(dataset, model, *needs):
    found = gather(frozenset({Need.LIKELIHOOD, *needs}), cell_of(dataset), dataset, NETWORKS, torch.zeros(0), model)
    return found.likelihood


@pytest.mark.parametrize(
    ("name", "kind", "estimator"),
    [
        ("gated_pixelcnn", "exact", "exact"),
        ("pixelcnn", "exact", "exact"),
        ("pixelrnn", "exact", "exact"),
        ("pixelcnn_pp", "exact", "exact"),
        ("made", "exact", "exact"),
        ("realnvp", "dequantised", "uniform dequantisation, 1 draw"),
    ],
)
def test_the_likelihood_of_a_shipped_model_says_how_it_was_made(name, kind, estimator):
    data = Shapes(resolution=8)
    model = build_model(MODELS.get(name), data.spec, preset="smoke", settings={}, owner=name).eval()
    found = _likelihood(data, model)
    assert (found.kind, found.estimator, found.levels, len(found.nats)) == (kind, estimator, 256, 100)
    assert found.true_nats is None


@pytest.mark.parametrize("law", ["checkerboard", "gaussians8", "gaussians25"])
def test_true_densities_are_of_the_examples_that_the_model_scores(law):
    data = Toy2D(law)
    model = DiagonalGaussian(data.spec)
    found = _likelihood(data, model, Need.TRUE_DENSITY)
    x = subset(data, "test", 100).x
    assert torch.equal(found.true_nats, data.log_density(x.double()))
    assert found.true_nats.dtype == torch.float64
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    torch.testing.assert_close(found.nats, normal.log_prob(x).double(), rtol=1e-6, atol=1e-6)


def test_a_density_is_looked_up_only_where_a_metric_wants_it():
    data = Toy2D("two_moons")  # which has none
    assert _likelihood(data, DiagonalGaussian(data.spec)).true_nats is None


@pytest.mark.parametrize(("data", "kind"), [(Toy2D("gaussians8"), "exact"), (Shapes(resolution=8), "dequantised")])
def test_a_density_is_exact_where_nothing_was_quantised(data, kind):
    model = build_model(MODELS.get("flow_matching"), data.spec, preset="smoke", settings={}, owner="flow_matching")
    assert model.likelihood_kind == "dequantised"
    assert _likelihood(data, model.eval()).kind == kind


def _of_codes(name, *needs, num_likelihood=24, **protocol):
    data = Shapes(resolution=8)
    cell = cell_of(data, num_likelihood)
    cell = cell.model_copy(update={"protocol": cell.protocol.model_copy(update=protocol)})
    model = build_model(MODELS.get(name), data.spec, preset="smoke", settings={}, owner=name).eval()
    return model, subset(data, "test", num_likelihood).x, gather(frozenset(needs), cell, data, NETWORKS, None, model)


@pytest.mark.parametrize("name", ["vae", "vqvae"])
def test_features_of_reconstructions_are_those_of_the_pictures_beside_their_originals(name):
    model, x, found = _of_codes(name, Need.RECONSTRUCTIONS, Need.RECONSTRUCTION_FEATURES)
    assert torch.equal(found.reconstructions.originals, x)
    assert torch.equal(found.reconstructions.reconstructions, model.reconstruct(x))
    features, network = found.reconstruction_features, NETWORKS.get("features")
    torch.testing.assert_close(features.originals, network(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.reconstructions, network(model.reconstruct(x)), rtol=1e-4, atol=1e-4)
    assert (features.extractor, features.protocol) == ("shapes_net", network.protocol())


@pytest.mark.parametrize("need", [Need.RECONSTRUCTIONS, Need.RECONSTRUCTION_FEATURES])
def test_only_what_was_asked_of_reconstructions_is_gathered(need):
    found = _of_codes("vae", need)[2]
    assert (found.reconstructions is None) == (need is not Need.RECONSTRUCTIONS)
    assert (found.reconstruction_features is None) == (need is not Need.RECONSTRUCTION_FEATURES)


def test_codes_know_the_dimensions_of_what_they_stand_for():
    model, x, found = _of_codes("vqvae", Need.CODES)
    assert torch.equal(found.codes.codes, model.encode(x))
    assert (found.codes.num_codes, found.codes.num_dims) == (model.num_codes, 192)


def test_latents_are_of_as_many_examples_as_the_tier_has_references():
    found = _of_codes("vae", Need.LATENTS, num_reference=37)[2].latents
    assert len(found.codes) == len(found.factors) == 37
    assert found.names == ("shape", "colour", "size", "position", "background")


def test_a_code_that_stores_each_factor_of_shapes_alone_falls_short_of_1_by_the_pairs_that_never_occur():
    table = Shapes(resolution=8).combinations("test")
    colours = -sum(share * math.log(share) for share in (0.15, 0.15, 0.15, 0.15, 0.2, 0.2))
    tied = math.log(4) + colours - math.log(20)
    expected = (5 - tied / math.log(4) - tied / colours) / 5
    assert tied == pytest.approx(0.1727, abs=1e-4)
    assert expected == pytest.approx(0.956, abs=5e-4)  # as the suite `disentanglement` says
    assert mig(table.astype(np.float64), table).value == pytest.approx(expected, rel=1e-12)
