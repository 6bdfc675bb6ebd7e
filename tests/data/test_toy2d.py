"""The laws in the plane: moments, exact densities against the points drawn."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from genbench.core.dataset import build_dataset
from genbench.core.density import KnownDensity
from genbench.core.errors import SettingError
from genbench.core.spec import parse_ref
from genbench.data.toy2d import Toy2D, means_of

LAWS = ("two_moons", "checkerboard", "spirals", "gaussians25", "gaussians8")
EXACT = ("checkerboard", "gaussians25", "gaussians8")


@pytest.mark.parametrize("law", LAWS)
def test_means_are_zero_variances_near_one_and_pieces_equally_likely(law):
    data = Toy2D(law)
    batch = data.load("train", range(40_000))
    assert batch.x.mean(0).abs().max() < 0.025
    assert (batch.x.var(0) - 1).abs().max() < 0.35
    assert stats.chisquare(torch.bincount(batch.y, minlength=data.spec.num_classes).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("law", EXACT)
def test_the_density_integrates_to_one(law):
    points = (np.arange(300) + 0.5) * 0.02 - 3.0  # exact for squares, and to 1e-50 for Gaussians this wide
    grid = torch.from_numpy(np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2))
    density = Toy2D(law).log_density(grid).exp()
    assert density.sum().item() * 0.02**2 == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("law", ["gaussians25", "gaussians8"])
def test_the_mean_log_density_of_points_is_minus_the_entropy_of_separate_modes(law):
    data = Toy2D(law)
    std = {"gaussians25": 0.05, "gaussians8": 0.1}[law]
    found = data.log_density(data.load("test", range(40_000)).x.double())
    expected = -math.log(data.spec.num_classes) - math.log(2 * math.pi * std**2) - 1.0
    assert found.mean().item() == pytest.approx(expected, abs=4 / math.sqrt(40_000))


@pytest.mark.parametrize("law", ["gaussians25", "gaussians8"])
def test_points_are_normal_around_the_mean_that_their_label_names(law):
    batch = Toy2D(law).load("train", range(20_000))
    offset = batch.x.numpy() - means_of(law)[batch.y.numpy()]
    for column in offset.T:
        std = {"gaussians25": 0.05, "gaussians8": 0.1}[law]
        assert stats.kstest(column / std, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(offset.T)[0, 1]) < 0.03


def test_the_density_of_a_mixture_agrees_with_scipy():
    x = Toy2D("gaussians8").load("test", range(50)).x.double()
    parts = [stats.multivariate_normal(mean, 0.01).pdf(x.numpy()) for mean in means_of("gaussians8")]
    expected = np.log(np.mean(parts, axis=0))
    assert torch.allclose(Toy2D("gaussians8").log_density(x), torch.from_numpy(expected), atol=1e-10)


def test_all_points_of_the_checkerboard_lie_on_its_eight_squares_and_evenly():
    data = Toy2D("checkerboard")
    batch = data.load("train", range(40_000))
    assert torch.allclose(data.log_density(batch.x), torch.tensor(-math.log(8.0)))
    inside = (batch.x % 1.0).numpy()
    for column in inside.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(inside.T)[0, 1]) < 0.02


def test_off_the_checkerboard_the_density_is_zero():
    found = Toy2D("checkerboard").log_density(torch.tensor([[-1.5, -0.5], [2.5, 0.5], [-1.5, -1.5]]))
    assert found.tolist() == [-math.inf, -math.inf, pytest.approx(-math.log(8))]


def test_without_noise_moons_and_spirals_would_lie_on_their_curves():
    moons = Toy2D("two_moons").load("train", range(5000))
    x = moons.x.double().numpy() / [1.15, 2.0] + [0.5, 0.25]
    middle = np.where(moons.y.numpy()[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    assert np.std(np.linalg.norm(x - middle, axis=1) - 1) == pytest.approx(0.1, rel=0.05)
    spirals = Toy2D("spirals").load("train", range(5000))
    x = spirals.x.double().numpy() * np.where(spirals.y.numpy()[:, None] == 0, 1, -1)
    radius, angle = np.linalg.norm(x, axis=1), np.arctan2(x[:, 1], x[:, 0])
    off = (angle - 3 * math.pi * radius / 2.0 + math.pi) % (2 * math.pi) - math.pi
    assert np.median(np.abs(off) * radius) < 0.25  # along the circle, where arms are 2 / 3 apart along the radius


@pytest.mark.parametrize("law", ["two_moons", "spirals"])
def test_a_law_without_a_density_says_so(law):
    assert isinstance(Toy2D(law), KnownDensity)
    reason = Toy2D(law).why_no_density()
    assert reason.startswith(f"law `{law}` has no density in closed form")
    with pytest.raises(ValueError, match=re.escape(reason)):
        Toy2D(law).log_density(torch.zeros(1, 2))


@pytest.mark.parametrize("law", EXACT)
def test_every_held_out_point_has_a_finite_density_in_either_precision(law):
    """Rounding to float32 puts none of them on the far side of an edge."""
    data = Toy2D(law)
    assert data.why_no_density() is None
    x = data.load("test", range(50_000)).x
    assert bool(data.log_density(x).isfinite().all() & data.log_density(x.double()).isfinite().all())


def test_an_unknown_law_is_a_setting_error():
    with pytest.raises(SettingError, match="expected one of 'two_moons'"):
        build_dataset(parse_ref("toy2d[law=rings]"))
