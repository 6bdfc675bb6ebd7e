"""The contrast between data and samples of a model, whose gradient is that of the negative log-likelihood.

    d/dtheta of -E_data log p(x) = E_data dE(x)/dtheta - E_p dE(x)/dtheta,    p(x) = exp(-E(x)) / Z

so with samples of p held constant the mean energies differ by a number of no meaning and of the right gradient. With
samples that are not of p, chains cut short, it is that of contrastive divergence (Hinton 2002).
"""

from __future__ import annotations

from torch import Tensor


def contrast(e_data: Tensor, e_model: Tensor) -> Tensor:
    """Mean energy of data less that of the model's samples: a scalar to be minimised with its gradient.

    Args:
        e_data: (B,) energies of data.
        e_model: (M,) energies of samples, which carry no gradient of their own.
    """
    return e_data.mean() - e_model.mean()
