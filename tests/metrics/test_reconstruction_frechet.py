"""Frechet distance of reconstructions: closed forms, an independent square root, and errors that follow the pairs."""

import numpy as np
import pytest
import torch
from scipy import linalg

from genbench.core.metric import Evidence, ReconstructionFeatureEvidence
from genbench.metrics.reconstruction_frechet import ReconstructionFrechet, reconstruction_frechet
from genbench.prob.frechet import two_sample_standard_error


def _originals(num=400, size=6, *, seed=0):
    """Features of unequal spread that depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(size, size)) / np.sqrt(size)
    return rng.normal(size=(num, size)) @ mixing + 1.0


def _blurred(real, *, seed=0):
    """Every row drawn towards a point, with noise of its own."""
    return 0.8 * real + 0.1 + 0.2 * np.random.default_rng(seed + 10_000).normal(size=real.shape)


def test_a_perfect_copy_has_distance_0_and_no_error():
    found = reconstruction_frechet(_originals(), _originals())
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.stderr == pytest.approx(0.0, abs=1e-9)


def test_a_shift_costs_its_square_whatever_images_were_drawn():
    shift = np.arange(6.0)
    found = reconstruction_frechet(_originals() + shift, _originals())
    assert found.value == pytest.approx(float(shift @ shift), rel=1e-10)
    assert found.stderr == pytest.approx(0.0, abs=1e-8)


def test_shrinking_costs_the_shrunken_spread_and_mean():
    real, scale = _originals(), 0.6
    expected = (1 - scale) ** 2 * (float(real.mean(0) @ real.mean(0)) + float(np.cov(real.T).trace()))
    assert reconstruction_frechet(scale * real, real).value == pytest.approx(expected, rel=1e-10)


def test_the_distance_is_that_of_a_general_matrix_square_root():
    real = _originals()
    made = _blurred(real)
    cov1, cov2 = np.cov(made.T), np.cov(real.T)
    cross = linalg.sqrtm(cov1 @ cov2).real.trace()
    expected = float(((made.mean(0) - real.mean(0)) ** 2).sum()) + cov1.trace() + cov2.trace() - 2 * cross
    assert reconstruction_frechet(made, real).value == pytest.approx(expected, rel=1e-9)


def test_the_error_is_that_of_a_jackknife_which_leaves_out_pairs():
    real = _originals(200)
    made = _blurred(real)
    num = len(real)
    left_out = [reconstruction_frechet(np.delete(made, i, 0), np.delete(real, i, 0)).value for i in range(num)]
    jackknife = np.sqrt((num - 1) / num * ((left_out - np.mean(left_out)) ** 2).sum())
    assert reconstruction_frechet(made, real).stderr == pytest.approx(jackknife, rel=0.03)


def test_the_error_is_the_spread_over_draws_and_not_that_of_sets_drawn_apart():
    pairs = [(_blurred(real, seed=seed), real) for seed in range(300) for real in (_originals(seed=seed),)]
    found = [reconstruction_frechet(made, real) for made, real in pairs]
    spread = np.std([estimate.value for estimate in found], ddof=1)
    assert np.mean([estimate.stderr for estimate in found]) == pytest.approx(spread, rel=0.12)  # 3 x 1 / sqrt(600)
    assert two_sample_standard_error(*pairs[0]) > 1.5 * found[0].stderr


def test_the_order_of_the_images_does_not_matter_but_pairs_do():
    real = _originals()
    made = _blurred(real)
    order = np.random.default_rng(1).permutation(len(real))
    first, moved, torn = (
        reconstruction_frechet(*pair) for pair in ((made, real), (made[order], real[order]), (made[order], real))
    )
    assert moved.value == pytest.approx(first.value, rel=1e-10)
    assert moved.stderr == pytest.approx(first.stderr, rel=1e-8)
    assert torn.value == pytest.approx(first.value, rel=1e-10)
    assert torn.stderr > 1.5 * first.stderr


def test_fewer_images_than_features_are_scored_and_said():
    real = _originals(20, 40)
    made = _blurred(real)
    found = reconstruction_frechet(made, real)
    assert found.value > 0.0
    assert np.isfinite(found.stderr)
    assert "no more images (20) than features (40)" in found.how
    assert reconstruction_frechet(real, real).value == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("made", "real", "message"),
    [
        (np.zeros((1, 3)), np.zeros((1, 3)), "at least 2"),
        (np.zeros((4, 3)), np.zeros((5, 3)), "as many originals"),
        (np.zeros((4, 3)), np.zeros((4, 2)), "one width"),
        (np.full((4, 3), np.nan), np.zeros((4, 3)), "finite"),
    ],
)
def test_what_are_no_pairs_is_refused(made, real, message):
    with pytest.raises(ValueError, match=message):
        reconstruction_frechet(made, real)


@pytest.mark.parametrize(("extractor", "name"), [("inception_v3", "rfid"), ("shapes_net", "rfd_shapes_net")])
def test_the_score_is_named_for_the_extractor(extractor, name):
    real = torch.from_numpy(_originals())
    made = torch.from_numpy(_blurred(_originals()))
    evidence = ReconstructionFeatureEvidence(
        originals=real, reconstructions=made, extractor=extractor, protocol={"extractor": extractor}
    )
    (score,) = ReconstructionFrechet().compute(Evidence(reconstruction_features=evidence))
    assert (score.name, score.better, score.num_samples, score.num_reference) == (name, "lower", 400, 400)
    assert score.value == reconstruction_frechet(made, real).value
    assert score.protocol["extractor"] == extractor
    assert score.protocol["num_images"] == 400


def test_nothing_rebuilt_gives_a_reason():
    with pytest.raises(ValueError, match="found none"):
        ReconstructionFrechet().compute(Evidence())
