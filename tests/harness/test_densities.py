"""Densities on a grid, against laws that have them in closed form."""

import math

import numpy as np
import pytest
import torch
from tiny_models import DiagonalGaussian

from genbench.core.model import EnergyBased, LikelihoodBound
from genbench.data.shapes import Shapes
from genbench.data.toy2d import Toy2D
from genbench.harness import densities

HALF = 4.0
SPEC = Toy2D("gaussians8").spec


def _normal(std=1.0):
    model = DiagonalGaussian(SPEC)
    model.log_std.data.fill_(math.log(std))
    return model


class _ByEnergy(DiagonalGaussian, EnergyBased):
    """The same law, known up to a constant; what it says of likelihoods is wrong, and must not be asked."""

    def energy(self, x):
        return 17.0 - self._log_prob(x)

    def log_likelihood(self, x, *, generator):
        raise AssertionError


class _Noisy(LikelihoodBound):
    def log_likelihood(self, x, *, generator):
        flat = torch.full((len(x),), -math.log((2 * HALF) ** 2))
        return flat + 0.5 * torch.randn(len(x), generator=generator)


def _closed_form(std, cells):
    at = densities.centres(HALF, cells).double()
    return torch.exp(-at.square().sum(1) / (2 * std**2)).reshape(cells, cells).numpy() / (2 * math.pi * std**2)


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_the_density_of_a_model_is_its_law_and_has_mass_1(std):
    found = densities.density_of_model(_normal(std), HALF, cells=40)
    np.testing.assert_allclose(found, _closed_form(std, 40), rtol=1e-4, atol=1e-6)
    assert densities.mass(found, HALF) == pytest.approx(1.0, abs=2e-4)


def test_an_energy_is_normalised_over_the_frame_whatever_its_constant():
    found = densities.density_of_model(_ByEnergy(SPEC), HALF, cells=40)
    np.testing.assert_allclose(found, _closed_form(1.0, 40), rtol=1e-3, atol=1e-6)
    assert densities.mass(found, HALF) == pytest.approx(1.0, abs=1e-9)


def test_rows_go_up_and_columns_to_the_right():
    model = _normal(0.2)
    model.mean.data = torch.tensor([2.0, -3.0])  # to the right, and low
    found = densities.density_of_model(model, HALF, cells=40)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row, column) in {(4, 29), (4, 30), (5, 29), (5, 30)}


def test_a_noisy_bound_is_a_mean_of_several_draws():
    found = np.log(densities.density_of_model(_Noisy(), HALF, cells=60))
    expected = 0.5 / math.sqrt(densities.DRAWS)
    assert found.std() == pytest.approx(expected, rel=0.05)
    assert found.mean() == pytest.approx(-math.log((2 * HALF) ** 2), abs=5 * expected / 60)


@pytest.mark.parametrize("law", ["checkerboard", "gaussians8", "gaussians25"])
def test_the_density_of_a_law_has_mass_1_in_a_frame_that_holds_its_points(law):
    data = Toy2D(law)
    points = densities.held_out(data)
    half = densities.half_side(points)
    assert float(points.abs().max()) < half
    found = densities.density_of_law(data, half, cells=400)
    assert densities.mass(found, half) == pytest.approx(1.0, abs=0.02)  # the checkerboard has edges between centres


def test_what_has_no_density_or_no_plane_says_so():
    assert densities.density_of_law(Toy2D("two_moons"), HALF) is None
    assert densities.density_of_law(Shapes(resolution=8), HALF) is None
    assert densities.why_no_plane(Toy2D("two_moons")) is None
    assert densities.why_no_plane(Shapes(resolution=8)) == (
        "the data are of kind `image` and shape (3, 8, 8), not points in the plane"
    )
    assert densities.why_no_density(torch.nn.Identity()) == "gives no density"
    assert densities.why_no_density(_normal()) is None


def test_masses_of_blocks_are_those_of_the_law_and_so_are_shares_of_its_draws():
    density = densities.density_of_model(_normal(), HALF, cells=80)
    believed = densities.masses(density, HALF, blocks=8)
    edges = torch.distributions.Normal(0.0, 1.0).cdf(torch.linspace(-HALF, HALF, 9)).double().diff().numpy()
    np.testing.assert_allclose(believed, np.outer(edges, edges), atol=2e-4)
    drawn = torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0))
    visited = densities.shares(drawn, HALF, blocks=8)
    assert densities.apart(believed, visited) < 0.02
    assert densities.unvisited(believed, visited) < 1e-3


def test_blocks_without_a_point_and_points_outside_are_noticed():
    believed = np.array([[0.5, 0.25], [0.25, 0.0]])
    points = torch.tensor([[-1.0, -1.0], [-1.0, -1.0], [1.0, -1.0], [9.0, 0.5]])  # low left, low right, and outside
    visited = densities.shares(points, 2.0, blocks=2)
    np.testing.assert_array_equal(visited, [[0.5, 0.25], [0.0, 0.0]])
    assert densities.unvisited(believed, visited) == 0.25
    assert densities.apart(believed, visited) == 0.25  # moved from high left to the outside
    assert densities.apart(believed, believed) == 0.0


def test_blocks_that_would_cut_cells_are_refused():
    with pytest.raises(ValueError, match="no 3 blocks"):
        densities.masses(np.ones((8, 8)), 1.0, blocks=3)
