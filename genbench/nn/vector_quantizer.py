"""Vector quantisation: features replaced by their nearest codes, and the ways of learning through it.

Symbols: f a feature, e_k the k-th of K codes, e the nearest of them, n_k and s_k the number and the sum of the
features that chose e_k in one batch, gamma the decay, sg the stop of gradients.

- Codebook `ema`: running means, after van den Oord et al. (2017, 1711.00937), Appendix A.1:

      N_k <- gamma N_k + (1 - gamma) n_k,    m_k <- gamma m_k + (1 - gamma) s_k,    e_k = m_k / N_k.

  N and m are the state and stay as these equations leave them. Laplace smoothing keeps the division finite
  for a code that nobody chooses; it enters the division alone, so that it cannot pile up in the state.
- Codebook `gradient`: parameters, pulled by an optimiser towards their features, ||sg(f) - e||^2 (the second term of
  Eq. 3 there); N is kept only to tell which codes are dead.
- Gradient `straight_through`: what arrives at e is handed to f as it is (Sec. 3.2 there).
- Gradient `rotation`: what arrives at e is turned and scaled as f is to e (Fifty et al., 2024, 2410.06424, Sec. 4).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMOOTHING = 1e-5  # pseudo-count of each code in the division
TINY_NORM = 1e-6  # a feature shorter than this has no direction that a rotation could start from
Codebook = Literal["ema", "gradient"]
Gradient = Literal["straight_through", "rotation"]


@dataclasses.dataclass(frozen=True)
class Quantised:
    """Features replaced by their nearest codes."""

    values: Tensor
    """(B, D, H, W): the codes; gradients pass to the features and not to the codebook."""
    codes: Tensor
    """(B, H, W) int64, 0 .. K-1."""
    commitment: Tensor
    """Scalar: mean squared distance of the features to their codes, with gradient to the features."""
    attraction: Tensor
    """Scalar of the same value with gradient to the codebook; 0 for a codebook that follows running means."""


class VectorQuantizer(nn.Module):
    """A codebook of K vectors of D dimensions; in buffers that no optimiser touches, or a parameter.

    Args:
        num_codes: K.
        code_dim: D.
        decay: gamma.
        revival_share: a code whose running count falls below this share of the mean count is dead, and
            takes the place of a random feature of the batch; 0 lets codes die.
        codebook: `ema` or `gradient`, see the module.
        gradient: `straight_through` or `rotation`, see the module.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    """Absent where the codebook is a parameter."""

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        *,
        decay: float,
        revival_share: float,
        codebook: Codebook = "ema",
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__()
        self.num_codes, self.code_dim = num_codes, code_dim
        self.decay, self.revival_share = decay, revival_share
        self.trained = codebook == "gradient"
        self.passed = rotated if gradient == "rotation" else copied
        if self.trained:
            self.codebook = nn.Parameter(torch.randn(num_codes, code_dim))
        else:
            self.register_buffer("codebook", torch.randn(num_codes, code_dim))
        self.register_buffer("counts", torch.ones(num_codes))
        if not self.trained:
            self.register_buffer("sums", self.codebook.clone())

    def forward(self, features: Tensor) -> Quantised:
        """Quantise features (B, D, H, W); the codebook stays as it is."""
        codes = self.nearest(features)
        chosen = self.embed(codes).to(features.dtype)
        values = chosen.detach()
        commitment = F.mse_loss(features, values)
        attraction = F.mse_loss(chosen, features.detach()) if self.trained else features.new_zeros(())
        return Quantised(self.passed(features, values), codes, commitment, attraction)

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
        """Count who chose which code among features (B, D, H, W), revive the dead, and move an `ema` codebook."""
        flat, chosen = _flat(features), codes.flatten()
        n = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
        self.counts.lerp_(n, 1.0 - self.decay)
        if self.trained:
            self._revive(self.codebook, flat, weight=torch.ones(()))
        else:
            s = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
            self.sums.lerp_(s, 1.0 - self.decay)
            self._revive(self.sums, flat, weight=self.counts.mean())
            self.codebook.copy_(self.sums / self._smoothed_counts().unsqueeze(1))

    @torch.no_grad()
    def fit(self, features: Tensor, *, num_rounds: int = 10) -> None:
        """Start from k-means on features (B, D, H, W), seeded by features drawn at random."""
        flat = _flat(features)
        self.codebook.copy_(_drawn(flat, self.num_codes))
        for _ in range(num_rounds):
            chosen = self.nearest(features).flatten()
            n = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
            s = torch.zeros_like(self.codebook).index_add_(0, chosen, flat)
            empty = (n == 0).unsqueeze(1)
            means = s / n.clamp_min(1.0).unsqueeze(1)
            self.codebook.copy_(torch.where(empty, _drawn(flat, self.num_codes), means))
        self.counts.fill_(len(flat) / self.num_codes)
        if not self.trained:
            self.sums.copy_(self.codebook * self.counts.unsqueeze(1))

    def perplexity(self) -> Tensor:
        """Effective number of codes in use, exp of the entropy of the running counts: scalar in 1 .. K."""
        shares = self.counts / self.counts.sum()
        return torch.exp(torch.special.entr(shares).sum())

    def _smoothed_counts(self) -> Tensor:
        total = self.counts.sum()
        return (self.counts + SMOOTHING) / (total + self.num_codes * SMOOTHING) * total

    def _revive(self, vectors: Tensor, flat: Tensor, *, weight: Tensor) -> None:
        """Restart codes with hardly a follower at random features, with the mean count to prove themselves.

        Args:
            vectors: (K, D), written in place: the codebook, or the sums behind it.
            flat: (R, D) features to draw from.
            weight: what a feature is multiplied by to become a row of `vectors`.
        """
        mean_count = self.counts.mean()
        dead = self.counts < self.revival_share * mean_count
        self.counts.copy_(torch.where(dead, mean_count, self.counts))
        drawn = _drawn(flat, self.num_codes) * weight
        vectors.copy_(torch.where(dead.unsqueeze(1), drawn, vectors))


def copied(features: Tensor, values: Tensor) -> Tensor:
    """Values (B, D, H, W) whose gradient arrives at the features unchanged."""
    return features + (values - features).detach()


def rotated(features: Tensor, values: Tensor) -> Tensor:
    """Values (B, D, H, W) whose gradient arrives at the features turned back and scaled: (|e|/|f|) R^T times it.

    Args:
        features: (B, D, H, W), f.
        values: (B, D, H, W), e, without gradient.

    R f / |f| = e / |e|, and R turns nothing outside the plane of the two:
    R = I - 2 r r^T + 2 e^ f^^T with unit vectors e^, f^ and r that of their sum. R and |e|/|f| count as constants.
    """
    fixed = features.detach()
    length = fixed.norm(dim=1, keepdim=True)
    ratio = torch.where(length > TINY_NORM, values.norm(dim=1, keepdim=True) / length.clamp_min(TINY_NORM), 1.0)
    f, e = F.normalize(fixed, dim=1), F.normalize(values, dim=1)
    r = F.normalize(f + e, dim=1)  # 0 where the two are opposite; R is right there too
    turned = features - 2.0 * r * _dot(r, features) + 2.0 * e * _dot(f, features)
    passed = ratio * turned
    return values + (passed - passed.detach())  # to the last bit what the decoder gets of codes


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def _flat(features: Tensor) -> Tensor:
    """(B, D, H, W) as (B*H*W, D) float32."""
    return features.detach().movedim(1, -1).flatten(0, -2).float()


def _drawn(flat: Tensor, count: int) -> Tensor:
    """Rows drawn at random: (count, D), all different while there are enough."""
    rows = torch.randperm(len(flat), device=flat.device)
    return flat[rows.repeat(-(-count // len(rows)))[:count]]
