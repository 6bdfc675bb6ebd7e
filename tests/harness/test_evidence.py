"""Likelihoods with what is said of them."""

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

NETWORKS = Networks(Roles(features=Ref(name="shapes_net")))


def _likelihood(dataset, model, *needs):
    found = gather(frozenset({Need.LIKELIHOOD, *needs}), cell_of(dataset), dataset, NETWORKS, torch.zeros(0), model)
    return found.likelihood


@pytest.mark.parametrize(
    ("name", "kind", "estimator"),
    [("gated_pixelcnn", "exact", "exact"), ("realnvp", "dequantised", "uniform dequantisation, 1 draw")],
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
