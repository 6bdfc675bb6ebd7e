"""What a denoising network returns, and how one quantity becomes another: noise, data or velocity.

x_t = alpha x_0 + sigma eps, and v = alpha eps - sigma x_0 (Salimans and Ho 2022, arXiv:2202.00512, Appendix D), where
alpha^2 + sigma^2 = 1. Errors differ by factors alone: |eps error| = alpha / sigma |x_0 error| and |v error| =
|x_0 error| / sigma.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Prediction = Literal["noise", "data", "velocity"]


def to_data(out: Tensor, kind: Prediction, x_t: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The x_0 that an output stands for: the shape of `x_t`; not from noise where alpha is 0."""
    if kind == "noise":
        return (x_t - sigma * out) / alpha
    return out if kind == "data" else alpha * x_t - sigma * out


def to_noise(out: Tensor, kind: Prediction, x_t: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The eps that an output stands for: the shape of `x_t`; not from data where sigma is 0."""
    if kind == "data":
        return (x_t - alpha * out) / sigma
    return out if kind == "noise" else alpha * out + sigma * x_t


def to_velocity(out: Tensor, kind: Prediction, x_t: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The v that an output stands for: the shape of `x_t`; not from data at sigma 0, nor from noise at alpha 0."""
    if kind == "data":
        return (alpha * x_t - out) / sigma
    return out if kind == "velocity" else (out - sigma * x_t) / alpha


def convert(out: Tensor, kind: Prediction, wanted: Prediction, x_t: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """An output of one kind as another: the shape of `x_t`."""
    by_kind = {"noise": to_noise, "data": to_data, "velocity": to_velocity}
    return by_kind[wanted](out, kind, x_t, alpha=alpha, sigma=sigma)


def with_slope(x_0: Tensor, slope: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The x_0 whose score has `slope` added, x_0 + sigma^2 / alpha slope: the shape of `x_0`.

    Its eps is eps - sigma slope. The slope of log p(y | x_t) makes E[x_0 | x_t] into E[x_0 | x_t, y] (Dhariwal and
    Nichol 2021, arXiv:2105.05233, Sec. 4.2).
    """
    return x_0 + sigma.square() / alpha * slope


def truth(kind: Prediction, x_0: Tensor, eps: Tensor, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect network returns: the shape of `x_0`."""
    if kind == "velocity":
        return alpha * eps - sigma * x_0
    return x_0 if kind == "data" else eps
