"""How near reconstructions come to their originals: PSNR, SSIM and LPIPS, each a mean over images.

    psnr  mean_i 10 log10(255^2 / MSE_i), in decibels; MSE_i over channels and pixels of image i
    ssim  mean_i of the mean structural similarity (Wang et al. 2004, IEEE TIP 13(4), Eq. 13), channel by channel
    lpips mean_i of the perceptual distance (Zhang et al. 2018, arXiv:1801.03924, Eq. 1), where it is at hand

PSNR of a perfect copy is infinite, and one of them would drown all others in a mean. It counts as
what the next best copy of its size would have, one whose error is a single value off by one:
10 log10(255^2 C H W). With `averaging="error"` the errors are averaged before the logarithm, which
gives a lower number (Jensen); most papers average the PSNR of images.

SSIM is that of scikit-image with the constants of the paper: Gaussian window of 11 pixels and
standard deviation 1.5, covariance with N in the denominator, data range 255, borders of 5 pixels left out.
Images with a side below 11 pixels get a uniform window of 7, or of the largest odd number that fits;
the protocol says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from skimage.metrics import structural_similarity
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ReconstructionEvidence, ScoreName, register_metric
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate, normal_interval

Averaging = Literal["images", "error"]
Window = Literal["gaussian", "uniform"]

PEAK = 255.0
GAUSSIAN_WINDOW = 11
"""Wang et al. 2004, Sec. III-C; its standard deviation is 1.5 pixels."""
UNIFORM_WINDOW = 7
"""Of scikit-image."""
_HOW = "spread over images"


def psnr(originals: Tensor, reconstructions: Tensor, *, averaging: Averaging = "images") -> Estimate:
    """Peak signal-to-noise ratio in decibels, 0 up to 10 log10(255^2 C H W), which a perfect copy gets.

    Args:
        originals: (N, C, H, W) uint8, 0 .. 255, N at least 2.
        reconstructions: likewise.
        averaging: the mean of the images' ratios, or the ratio of their mean error (delta method).

    Raises:
        ValueError: fewer than 2 images, unequal shapes, or values that are not uint8.
    """
    errors = _mean_squared_errors(*_checked(originals, reconstructions))
    least = 1.0 / math.prod(originals.shape[1:])
    exact = int((errors == 0.0).sum())
    how = _HOW if exact == 0 else f"{_HOW}; {exact} perfect copies count as one value off by one"
    if averaging == "images":
        return mean_estimate(10.0 * np.log10(PEAK**2 / np.maximum(errors, least)), how=how, low=0.0)
    error = mean_estimate(np.maximum(errors, least), how=how)
    assert error.stderr is not None
    value = 10.0 * math.log10(PEAK**2 / error.value)
    stderr = 10.0 / math.log(10.0) * error.stderr / error.value
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0), f"delta method, {how}")


def ssim(originals: Tensor, reconstructions: Tensor, *, window: Window = "gaussian") -> Estimate:
    """Mean structural similarity, -1 .. 1, 1 for a perfect copy.

    Args:
        originals: (N, C, H, W) uint8, 0 .. 255, N at least 2, H and W at least 3.
        reconstructions: likewise.
        window: `gaussian` as in the paper, 11 pixels wide; `uniform`, 7 wide with the sample covariance, as
            scikit-image has it when nothing is said. Both are `uniform` and narrower where the images are smaller.

    Raises:
        ValueError: fewer than 2 images, unequal shapes, values that are not uint8, or images below 3 pixels.
    """
    similarity = _similarity(window, min(originals.shape[2:], default=0))
    values = [
        similarity(x, y) for x, y in zip(*(part.numpy() for part in _checked(originals, reconstructions)), strict=True)
    ]
    return mean_estimate(np.array(values), how=_HOW, low=-1.0, high=1.0)


def ssim_window(window: Window, side: int) -> str:
    """The window that images with a shorter side of `side` pixels get: `gaussian 11`, `uniform 7` or a narrower one."""
    if window == "gaussian" and side >= GAUSSIAN_WINDOW:
        return f"gaussian {GAUSSIAN_WINDOW}"
    return f"uniform {min(UNIFORM_WINDOW, side - 1 + side % 2)}"


@register_metric("reconstruction")
@dataclass(frozen=True)
class Reconstruction(Metric):
    """`psnr` and `ssim`, and `lpips` where a perceptual network is at hand."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.RECONSTRUCTIONS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("psnr", "higher", "dB"),
        ScoreName("ssim", "higher"),
        ScoreName("lpips", "lower"),
    )
    source: ClassVar[str] = "Wang et al. 2004, IEEE TIP 13(4), Eq. 13; Zhang et al. 2018, arXiv:1801.03924, Eq. 1"

    averaging: Averaging = "images"
    """Of PSNR: `images` averages ratios, as most papers do; `error` averages squared errors first."""
    window: Window = "gaussian"
    """Of SSIM: `gaussian` as in its paper; `uniform` as scikit-image has it when nothing is said."""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores, or three.

        Raises:
            ValueError: no reconstructions, or those that `psnr` and `ssim` refuse.
        """
        found = evidence.reconstructions
        if found is None:
            raise ValueError("PSNR and SSIM need at least 2 originals and their reconstructions, found none")
        pair = (found.originals, found.reconstructions)
        size = "x".join(map(str, found.originals.shape[1:]))
        averaged, similar = psnr(*pair, averaging=self.averaging), ssim(*pair, window=self.window)
        used = ssim_window(self.window, min(found.originals.shape[2:]))
        count = len(found.originals)
        scores = [
            scored(
                "psnr",
                averaged,
                better="higher",
                unit="dB",
                num_samples=count,
                protocol={"averaging": self.averaging, "data_range": 255, "shape": size},
            ),
            scored(
                "ssim",
                similar,
                better="higher",
                num_samples=count,
                protocol={"window": used, "data_range": 255, "shape": size},
            ),
        ]
        if found.distances is not None:
            scores.append(_perceptual(found, found.distances, size))
        return tuple(scores)


def _perceptual(found: ReconstructionEvidence, distances: Tensor, size: str) -> Score:
    values = distances.detach().double().cpu().numpy()
    if values.shape != (len(found.originals),) or not np.isfinite(values).all():
        raise ValueError(f"LPIPS needs a finite distance for each of {len(found.originals)} images, found others")
    protocol: dict[str, Scalar] = {**found.protocol, "shape": size}
    estimate = mean_estimate(values, how=_HOW, low=0.0)
    return scored("lpips", estimate, better="lower", num_samples=len(values), protocol=protocol)


def _similarity(window: Window, side: int) -> Callable[[np.ndarray, np.ndarray], float]:
    if side < 3:
        raise ValueError(f"SSIM needs images of at least 3 pixels, found a side of {side}")
    law, width = ssim_window(window, side).split()

    def similarity(x: np.ndarray, y: np.ndarray) -> float:
        """Of two images (C, H, W), uint8 to float64 as scikit-image would otherwise take float32 statistics."""
        pair = (x.astype(np.float64), y.astype(np.float64))
        if law == "gaussian":
            found = structural_similarity(
                *pair, channel_axis=0, data_range=PEAK, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
        else:
            found = structural_similarity(*pair, channel_axis=0, data_range=PEAK, win_size=int(width))
        return float(found)

    return similarity


def _mean_squared_errors(originals: Tensor, reconstructions: Tensor) -> np.ndarray:
    """(N,) float64, exact: differences of uint8 are whole numbers."""
    parts = zip(originals.split(256), reconstructions.split(256), strict=True)
    return np.concatenate([(x.double() - y.double()).square().flatten(1).mean(dim=1).numpy() for x, y in parts])


def _checked(originals: Tensor, reconstructions: Tensor) -> tuple[Tensor, Tensor]:
    shapes = (tuple(originals.shape), tuple(reconstructions.shape))
    if originals.ndim != 4 or shapes[0] != shapes[1] or len(originals) < 2:
        raise ValueError(
            "PSNR and SSIM need at least 2 originals (N, C, H, W) and as many reconstructions, "
            f"found shapes {shapes[0]} and {shapes[1]}"
        )
    kinds = {str(part.dtype).removeprefix("torch.") for part in (originals, reconstructions)}
    if kinds != {"uint8"}:
        raise ValueError(f"PSNR and SSIM need uint8 images with values 0 .. 255, found {', '.join(sorted(kinds))}")
    return originals.cpu(), reconstructions.cpu()
