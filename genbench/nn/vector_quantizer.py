"""Vector quantisation with a codebook that follows its own running means.

Symbols: f a feature, e_k the k-th of K codes, n_k and s_k the number and the sum of the features that
chose e_k in one batch, gamma the decay. After van den Oord et al. (2017, 1711.00937), Appendix A.1:

    N_k <- gamma N_k + (1 - gamma) n_k,    m_k <- gamma m_k + (1 - gamma) s_k,    e_k = m_k / N_k.

N and m are the state and stay as these equations leave them. Laplace smoothing keeps the division finite
for a code that nobody chooses; it enters the division alone, so that it cannot pile up in the state.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTHING = 1e-5  # pseudo-count of each code in the division


@dataclasses.dataclass(frozen=True)
class Quantised:
    """Features replaced by their nearest codes."""

    values: Tensor
    """(B, D, H, W): the codes; gradients pass to the features as if nothing had been replaced."""
    codes: Tensor
    """(B, H, W) int64, 0 .. K-1."""
    commitment: Tensor
    """Scalar: mean squared distance of the features to their codes, with gradient to the features."""


class VectorQuantizer(nn.Module):
    """A codebook of K vectors of D dimensions, held in buffers: no optimiser touches it.

    Args:
        num_codes: K.
        code_dim: D.
        decay: gamma.
        revival_share: a code whose running count falls below this share of the mean count is dead, and
            takes the place of a random feature of the batch; 0 lets codes die.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, code_dim: int, *, decay: float, revival_share: float) -> None:
        super().__init__()
        self.num_codes, self.code_dim = num_codes, code_dim
        self.decay, self.revival_share = decay, revival_share
        self.register_buffer("codebook", torch.randn(num_codes, code_dim))
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("sums", self.codebook.clone())

    def forward(self, features: Tensor) -> Quantised:
        """Quantise features (B, D, H, W); the codebook stays as it is."""
        codes = self.nearest(features)
        values = self.embed(codes).to(features.dtype)
        commitment = F.mse_loss(features, values)
        return Quantised(features + (values - features).detach(), codes, commitment)

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """Codes of features (B, D, H, W), argmin_k ||e_k||^2 - 2 f . e_k: (B, H, W) int64."""
        flat = _flat(features)
        half_norms = 0.5 * self.codebook.square().sum(1)
        codes = torch.addmm(half_norms, flat, self.codebook.T, alpha=-1.0).argmin(1)
        return codes.view(features.shape[0], *features.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """Vectors of codes (B, H, W): (B, D, H, W)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor) -> None:
        """Move the codebook towards the means of the features (B, D, H, W) that chose each code; revive the dead."""
        flat = _flat(features)
        chosen = codes.flatten()
        n = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
        s = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
        self.counts.lerp_(n, 1.0 - self.decay)
        self.sums.lerp_(s, 1.0 - self.decay)
        self._revive(flat)
        self.codebook.copy_(self.sums / self._smoothed_counts().unsqueeze(1))

    @torch.no_grad()
    def fit(self, features: Tensor, *, num_rounds: int = 10) -> None:
        """Start from k-means on features (B, D, H, W), seeded by features drawn at random."""
        flat = _flat(features)
        self.codebook.copy_(_drawn(flat, self.num_codes))
        for _ in range(num_rounds):
            chosen = self.nearest(features).flatten()
            n = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
            s = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
            empty = (n == 0).unsqueeze(1)
            means = s / n.clamp_min(1.0).unsqueeze(1)
            self.codebook.copy_(torch.where(empty, _drawn(flat, self.num_codes), means))
        self.counts.fill_(len(flat) / self.num_codes)
        self.sums.copy_(self.codebook * self.counts.unsqueeze(1))

    def perplexity(self) -> Tensor:
        """Effective number of codes in use, exp of the entropy of the running counts: scalar in 1 .. K."""
        shares = self.counts / self.counts.sum()
        return torch.exp(torch.special.entr(shares).sum())

    def _smoothed_counts(self) -> Tensor:
        total = self.counts.sum()
        return (self.counts + SMOOTHING) / (total + self.num_codes * SMOOTHING) * total

    def _revive(self, flat: Tensor) -> None:
        """Restart codes with hardly a follower at random features, with the mean count to prove themselves."""
        mean_count = self.counts.mean()
        dead = self.counts < self.revival_share * mean_count
        self.counts.copy_(torch.where(dead, mean_count, self.counts))
        drawn = _drawn(flat, self.num_codes) * mean_count
        self.sums.copy_(torch.where(dead.unsqueeze(1), drawn, self.sums))


def _flat(features: Tensor) -> Tensor:
    """(B, D, H, W) as (B*H*W, D) float32."""
    return features.detach().movedim(1, -1).flatten(0, -2).float()


def _drawn(flat: Tensor, count: int) -> Tensor:
    """Rows drawn at random: (count, D), all different while there are enough."""
    rows = torch.randperm(len(flat), device=flat.device)
    return flat[rows.repeat(-(-count // len(rows)))[:count]]
