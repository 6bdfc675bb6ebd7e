"""Noise-contrastive estimation: an unnormalised density is learned by telling data from noise of a known density.

With G(u) = log p(u) - log q(u) - log nu, for data x of p and nu draws y of the noise q for each,

    J = E_x log sigmoid(G(x)) + nu E_y log sigmoid(-G(y))      (Gutmann and Hyvarinen 2012)

is largest where p is the law of the data, its constant included: log Z is a parameter as any other.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def noise_contrast(log_ratio_data: Tensor, log_ratio_noise: Tensor) -> Tensor:
    """-J: a scalar to be minimised; log 4 where equally many of one law cannot be told apart.

    Args:
        log_ratio_data: (B,), log p(x) - log q(x) of data.
        log_ratio_noise: (M,), the same of noise; nu is M / B.
    """
    nu = len(log_ratio_noise) / len(log_ratio_data)
    log_nu = math.log(nu)
    return F.softplus(log_nu - log_ratio_data).mean() + nu * F.softplus(log_ratio_noise - log_nu).mean()
