"""PSNR and SSIM of reconstructions against formulas and two libraries."""

import math
import warnings

import numpy as np
import pytest
import torch

from genbench.core.metric import Evidence, ReconstructionEvidence
from genbench.metrics.reconstruction import Reconstruction, psnr, ssim, ssim_window

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    skimage = pytest.importorskip("skimage.metrics")


def _pair(num=6, side=32, *, noise=12.0, seed=0, channels=3):
    random = np.random.default_rng(seed)
    smooth = np.cumsum(random.normal(size=(num, channels, side, side)), axis=3) * 10 + 128
    noisy = smooth + random.normal(size=smooth.shape) * noise * random.uniform(0.5, 2.0, size=(num, 1, 1, 1))
    return tuple(torch.from_numpy(part.clip(0, 255).astype(np.uint8)) for part in (smooth, noisy))


def test_a_constant_error_gives_its_closed_form():
    x = torch.full((3, 3, 16, 16), 100, dtype=torch.uint8)
    found = psnr(x, x + 5)
    assert found.value == pytest.approx(20 * math.log10(255 / 5), rel=1e-12)
    assert found.stderr == pytest.approx(0.0, abs=1e-12)


def test_errors_are_not_taken_modulo_256():
    x = torch.full((2, 1, 8, 8), 250, dtype=torch.uint8)
    assert psnr(x, torch.full_like(x, 5)).value == pytest.approx(20 * math.log10(255 / 245), rel=1e-12)


def test_psnr_is_that_of_two_libraries():
    x, y = _pair()
    expected = [
        skimage.peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x.numpy(), y.numpy(), strict=True)
    ]
    assert psnr(x, y).value == pytest.approx(float(np.mean(expected)), rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("torchmetrics.functional.image")
    pooled = peer.peak_signal_noise_ratio(y.double(), x.double(), data_range=255.0)
    assert psnr(x, y, averaging="error").value == pytest.approx(float(pooled), rel=1e-6)
    each = peer.peak_signal_noise_ratio(y.double(), x.double(), data_range=255.0, dim=(1, 2, 3))
    assert psnr(x, y).value == pytest.approx(float(each), rel=1e-6)


def test_ssim_is_that_of_two_libraries():
    x, y = _pair()
    pairs = list(zip(x.numpy(), y.numpy(), strict=True))
    settings = {"channel_axis": 0, "data_range": 255}
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = np.mean([skimage.structural_similarity(a, b, **settings, **gaussian) for a, b in pairs])
    assert ssim(x, y).value == pytest.approx(expected, rel=1e-6)
    expected = np.mean([skimage.structural_similarity(a, b, **settings) for a, b in pairs])
    assert ssim(x, y, window="uniform").value == pytest.approx(expected, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("torchmetrics.functional.image")
    padded, each = peer.structural_similarity_index_measure(
        y.double(), x.double(), data_range=255.0, return_full_image=True
    )
    assert ssim(x, y).value == pytest.approx(float(each[..., 5:-5, 5:-5].mean()), rel=1e-9)
    assert ssim(x, y).value != pytest.approx(float(padded), rel=1e-2)  # it averages the reflected border too


def test_ssim_of_constant_images_is_its_closed_form():
    """Without variance only the luminance is left: (2 a b + C1) / (a^2 + b^2 + C1), C1 = (0.01 * 255)^2."""
    x = torch.full((2, 3, 16, 16), 90, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 90 * 120 + c1) / (90**2 + 120**2 + c1)
    assert ssim(x, torch.full_like(x, 120)).value == pytest.approx(expected, rel=1e-9)
    assert ssim(x, x).value == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("side", "window"),
    [(64, "gaussian 11"), (11, "gaussian 11"), (10, "uniform 7"), (7, "uniform 7"), (6, "uniform 5"), (3, "uniform 3")],
)
def test_small_images_get_a_window_that_fits_and_the_protocol_says_which(side, window):
    x, y = _pair(side=side)
    assert ssim_window("gaussian", side) == window
    scores = Reconstruction().compute(Evidence(reconstructions=ReconstructionEvidence(originals=x, reconstructions=y)))
    assert scores[1].protocol == {"window": window, "data_range": 255, "shape": f"3x{side}x{side}"}
    assert -1.0 <= scores[1].value < 1.0


def test_a_perfect_copy_has_the_psnr_of_one_value_off_by_one():
    x, y = _pair(num=2)
    off = x.clone()
    off[0, 0, 0, 0] ^= 1
    best = 10 * math.log10(255**2 * 3 * 32 * 32)
    assert psnr(x, x).value == pytest.approx(best, rel=1e-12)
    assert psnr(x[:1].repeat(2, 1, 1, 1), off[:1].repeat(2, 1, 1, 1)).value == pytest.approx(best, rel=1e-12)
    assert psnr(x, x, averaging="error").value == pytest.approx(best, rel=1e-12)
    mixed = psnr(x, torch.cat([x[:1], y[1:]]))
    assert math.isfinite(mixed.value)
    assert "1 perfect copies count as one value off by one" in mixed.how


def test_the_mean_error_gives_a_lower_psnr_with_an_error_by_the_delta_method():
    x, y = _pair(num=200, side=8)
    images, pooled = psnr(x, y), psnr(x, y, averaging="error")
    assert pooled.value < images.value
    errors = (x.double() - y.double()).square().flatten(1).mean(dim=1).numpy()
    draws = np.random.default_rng(0).choice(errors, size=(2000, 200)).mean(axis=1)
    assert pooled.stderr == pytest.approx(float(np.std(10 * np.log10(255**2 / draws))), rel=0.1)


@pytest.mark.slow
def test_the_intervals_cover_the_true_means_as_often_as_they_say():
    x, y = _pair(num=4000, side=11, channels=1)
    truths = {"psnr": psnr(x, y).value, "error": psnr(x, y, averaging="error").value}
    random, covered = np.random.default_rng(1), {"psnr": 0, "error": 0}
    for _ in range(1000):
        rows = torch.from_numpy(random.integers(0, 4000, size=100))
        for name, averaging in (("psnr", "images"), ("error", "error")):
            low, high = psnr(x[rows], y[rows], averaging=averaging).ci95
            covered[name] += low <= truths[name] <= high
    assert all(0.92 <= count / 1000 <= 0.98 for count in covered.values())


def test_three_scores_where_distances_are_known_and_two_where_not():
    x, y = _pair(num=4)
    known = ReconstructionEvidence(
        originals=x, reconstructions=y, distances=torch.tensor([0.1, 0.2, 0.3, 0.4]), protocol={"net": "alex"}
    )
    scores = {score.name: score for score in Reconstruction().compute(Evidence(reconstructions=known))}
    assert list(scores) == ["psnr", "ssim", "lpips"]
    assert scores["psnr"].unit == "dB"
    assert (scores["psnr"].better, scores["lpips"].better) == ("higher", "lower")
    assert scores["lpips"].value == pytest.approx(0.25, abs=1e-7)
    assert scores["lpips"].protocol == {"net": "alex", "shape": "3x32x32"}
    assert all(score.ci95[0] <= score.value <= score.ci95[1] for score in scores.values())
    unknown = ReconstructionEvidence(originals=x, reconstructions=y)
    assert [score.name for score in Reconstruction().compute(Evidence(reconstructions=unknown))] == ["psnr", "ssim"]


def test_what_cannot_be_compared_is_refused():
    x, y = _pair(num=3)
    for pair, message in (
        ((x[:1], y[:1]), "at least 2 originals"),
        ((x, y[:2]), "found shapes"),
        ((x.float() / 255, y.float() / 255), "uint8 images with values 0 .. 255, found float32"),
    ):
        with pytest.raises(ValueError, match=message):
            psnr(*pair)
        with pytest.raises(ValueError, match=message):
            ssim(*pair)
    with pytest.raises(ValueError, match="at least 3 pixels"):
        ssim(x[..., :2], y[..., :2])
    with pytest.raises(ValueError, match="found none"):
        Reconstruction().compute(Evidence())
    broken = ReconstructionEvidence(originals=x, reconstructions=y, distances=torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match="a finite distance for each of 3 images"):
        Reconstruction().compute(Evidence(reconstructions=broken))
