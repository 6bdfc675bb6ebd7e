"""Monotone splines of quotients of quadratics: an invertible map of the line that is as flexible as it has knots.

Durkan, Bekasov, Murray, Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, Sec. 3.1; Gregory and Delbourgo,
1982, doi:10.1093/imanum/2.2.123.

Inside [-bound, bound] the map goes through K+1 knots (x_k, y_k) with slopes d_k; with xi = (x - x_k) / dx in its bin,
s = dy / dx and c = d_k + d_{k+1} - 2 s,

    y      = y_k + dy (s xi^2 + d_k xi (1 - xi)) / (s + c xi (1 - xi))                                       (Eq. 4)
    dy/dx  = s^2 (d_{k+1} xi^2 + 2 s xi (1 - xi) + d_k (1 - xi)^2) / (s + c xi (1 - xi))^2                  (Eq. 5)

and outside it is the identity, whose slope of 1 the end knots share. Parameters of 0 make it the identity everywhere.

Shapes are static and no value is read back: bins are found by comparing with all knots, and what belongs to the two
knots of a bin is gathered at once. Knots are sums along axis 1, so that the positions behind it stay next to each other
in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_BIN = 1e-3
"""Least share of a bin in the interval, along both axes."""
MIN_SLOPE = 1e-3
"""Least slope at a knot."""
SLOPE_SHIFT = math.log(math.expm1(1.0 - MIN_SLOPE))
"""What a parameter of 0 is moved by, so that softplus of it is a slope of 1 less `MIN_SLOPE`."""


class Knots(NamedTuple):
    """Knots of one spline for each element: (B, K+1, ...) each, rising in x and y."""

    x: Tensor
    y: Tensor
    slope: Tensor


def num_parameters(num_bins: int) -> int:
    """Of one spline: K widths, K heights, K-1 slopes."""
    return 3 * num_bins - 1


def knots_of(raw: Tensor, *, bound: float) -> Knots:
    """Knots from unconstrained parameters (B, 3K-1, ...): widths, heights, and slopes of the inner knots.

    Raises:
        ValueError: axis 1 does not have 3K-1 entries for a K of at least 1, or at most 1 / `MIN_BIN` of them.
    """
    num_bins, left = divmod(raw.shape[1] + 1, 3)
    if left or num_bins < 1 or num_bins * MIN_BIN >= 1.0:
        raise ValueError(f"a spline of K bins has 3K-1 parameters, found {raw.shape[1]}")
    rest = raw.shape[2:]
    both = raw[:, : 2 * num_bins].unflatten(1, (2, num_bins))  # (B, 2, K, ...)
    taken = both.softmax(dim=2)[:, :, :-1].cumsum(dim=2)  # shares of the bins up to each inner knot, (B, 2, K-1, ...)
    least = torch.arange(1, num_bins, device=raw.device, dtype=raw.dtype) * (2.0 * bound * MIN_BIN) - bound
    inner = least.view(-1, *[1] * len(rest)).add(taken, alpha=2.0 * bound * (1.0 - num_bins * MIN_BIN))
    end = raw.new_full((), bound).expand(len(raw), 2, 1, *rest)
    x, y = torch.cat([-end, inner, end], dim=2).unbind(1)
    slopes = MIN_SLOPE + F.softplus(raw[:, 2 * num_bins :] + SLOPE_SHIFT)
    one = raw.new_ones(()).expand(len(raw), 1, *rest)
    return Knots(x, y, torch.cat([one, slopes, one], dim=1))


def spline(x: Tensor, raw: Tensor, *, bound: float) -> tuple[Tensor, Tensor]:
    """Images and the logarithms of the slopes there: the shape of `x` each.

    Args:
        x: (B, ...).
        raw: (B, 3K-1, ...), see `knots_of`.
        bound: half the length of the interval.
    """
    knots, inside = knots_of(raw, bound=bound), x.abs() <= bound
    x_in = x.clamp(-bound, bound)
    bins = _bins_of(x_in, knots.x, knots)
    y, log_slope = _image(x_in, bins)
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


def inverse_spline(y: Tensor, raw: Tensor, *, bound: float) -> Tensor:
    """The points whose images are `y`: its shape; carries gradients. Arguments as those of `spline`."""
    knots, inside = knots_of(raw, bound=bound), y.abs() <= bound
    y_in = y.clamp(-bound, bound)
    x = _preimage(y_in, _bins_of(y_in, knots.y, knots))
    return torch.where(inside, x, y)


class _Bins(NamedTuple):
    """The bin that each element lies in: the shape of the elements each."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope: Tensor
    """Mean slope s."""
    first: Tensor
    """Slope at the left end, d_k."""
    curve: Tensor
    """c, which is 0 where the bin is straight."""
    last: Tensor
    """Slope at the right end."""


def _bins_of(values: Tensor, along: Tensor, knots: Knots) -> _Bins:
    """Of the values (B, ...), by the knots (B, K+1, ...) along the axis that they are on."""
    index = (values[:, None] >= along[:, 1:-1]).sum(dim=1, keepdim=True)  # (B, 1, ...), 0 .. K-1
    ends = torch.cat([index, index + 1], dim=1)
    (x0, x1), (y0, y1), (first, last) = (of_all.gather(1, ends).unbind(1) for of_all in knots)
    width, height = x1 - x0, y1 - y0
    slope = height / width
    return _Bins(x0, y0, width, height, slope, first, first + last - 2.0 * slope, last)


def _image(x: Tensor, bins: _Bins) -> tuple[Tensor, Tensor]:
    """Eq. 4 and the logarithm of Eq. 5, as sums of what is above 0."""
    xi = (x - bins.x) / bins.width
    rest = 1.0 - xi
    both, square = xi * rest, xi.square()
    below = torch.addcmul(bins.slope, bins.curve, both)
    y = torch.addcmul(bins.y, bins.height, torch.addcmul(bins.slope * square, bins.first, both) / below)
    above = torch.addcmul(torch.addcmul(bins.first * rest.square(), bins.last, square), bins.slope, both, value=2.0)
    return y, (above * (bins.slope / below).square()).log()


def _preimage(y: Tensor, bins: _Bins) -> Tensor:
    """The root in [0, 1] of Eq. 4 as a xi^2 + b xi + c = 0, by the formula in which nothing cancels."""
    over = y - bins.y
    a = bins.height * (bins.slope - bins.first) + over * bins.curve
    b = bins.height * bins.first - over * bins.curve
    c = -bins.slope * over
    root = (b.square() - 4.0 * a * c).clamp(min=0.0).sqrt()
    positive = b >= 0.0
    above = torch.where(positive, 2.0 * c, root - b)
    below = torch.where(positive, -b - root, 2.0 * a)
    return bins.x + bins.width * (above / below)
