"""Mu-law companding: amplitudes in [-1, 1] as integers, fine near silence and coarse near the peaks, and back.

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),    mu = levels - 1

(ITU-T Recommendation G.711; van den Oord et al. 2016, arXiv:1609.03499, Sec. 2.2). Level k stands for the amplitude
with F(x) = 2k/(levels-1) - 1: the [-1, 1] axis of `prob.pixels` is the companded one. No level is silence exactly;
of 256 levels the nearest, 128, is an amplitude of 9e-5, three steps of 16-bit sound.

Written with numpy alone, so that reports can use it.
"""

from __future__ import annotations

import numpy as np


def encode(amplitudes: np.ndarray, *, levels: int = 256) -> np.ndarray:
    """Nearest level on the companded axis: uint8 of the same shape; amplitudes outside [-1, 1] are clipped.

    Args:
        amplitudes: floats.
        levels: size of the alphabet, 2 .. 256.

    Raises:
        ValueError: an amplitude is NaN, or that many levels do not fit.
    """
    mu = _mu(levels)
    x = np.clip(np.asarray(amplitudes, dtype=np.float64), -1.0, 1.0)
    if np.isnan(x).any():
        raise ValueError("an amplitude is NaN, all must be numbers")
    companded = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    return np.asarray(np.floor((companded + 1.0) * (0.5 * mu) + 0.5).astype(np.uint8))


def decode(codes: np.ndarray, *, levels: int = 256) -> np.ndarray:
    """Amplitudes of levels: float64 in [-1, 1] of the same shape.

    Args:
        codes: whole numbers 0 .. levels-1.
        levels: size of the alphabet, 2 .. 256.
    """
    mu = _mu(levels)
    companded = 2.0 * np.asarray(codes, dtype=np.float64) / mu - 1.0
    one = np.log1p(mu)  # expm1 of it is mu but for rounding; divided by itself, full scale is 1 exactly
    return np.asarray(np.sign(companded) * np.expm1(np.abs(companded) * one) / np.expm1(one))


def _mu(levels: int) -> float:
    if not 2 <= levels <= 256:
        raise ValueError(f"levels is {levels}, expected 2 .. 256")
    return float(levels - 1)
