"""A denoiser around a network whose inputs and targets have unit variance (Karras et al. 2022, arXiv:2206.00364).

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise),  x = y + sigma eps, with data y of standard deviation sigma_data

Table 1 there follows from two demands, that input and target of F have unit variance, and from c_out being the least
that then serves (Appendix B.6). Song et al. (2023, arXiv:2303.01469, Appendix C) shift c_skip and c_out by the least
noise sigma_min, so that D is the identity there and not only at 0; with a `shift` of 0 the two are the same.
"""

from __future__ import annotations

import dataclasses
from typing import Self

from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Preconditioning:
    """The four coefficients at noise levels of any shape; each has that shape."""

    skip: Tensor
    """c_skip = sigma_data^2 / ((sigma - shift)^2 + sigma_data^2)."""
    out: Tensor
    """c_out = (sigma - shift) sigma_data / sqrt(sigma^2 + sigma_data^2)."""
    into: Tensor
    """c_in = 1 / sqrt(sigma^2 + sigma_data^2)."""
    noise: Tensor
    """c_noise = log(sigma) / 4."""

    @classmethod
    def at(cls, sigma: Tensor, sigma_data: float, *, shift: float = 0.0) -> Self:
        """The coefficients at these levels.

        Args:
            sigma: standard deviations of the noise, above 0.
            sigma_data: standard deviation of the data.
            shift: the level at which the denoiser is the identity.
        """
        total, above = sigma.square() + sigma_data**2, sigma - shift
        return cls(
            skip=sigma_data**2 / (above.square() + sigma_data**2),
            out=above * sigma_data * total.rsqrt(),
            into=total.rsqrt(),
            noise=sigma.log() / 4.0,
        )
