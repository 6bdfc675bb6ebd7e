"""From features of a step to the law of its level: a softmax over all levels, or a mixture of discretised logistics.

Each starts at the histogram of a batch, gives exact log-probabilities, and draws by inverting at uniforms that it is
handed, so that two ways to compute the features can be held to the same draws.

Symbols: `N` samples, `R` rows, `S` features, `K` levels, `M` components.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.nn._categorical_head import categorical_log_prob, categorical_nll, draw
from genbench.nn.gated_pixelcnn import OrderedLevels
from genbench.prob import discretized_logistic as logistic
from genbench.prob.pixels import to_signed

LOCATION_GAIN = 0.1
"""Of the mixture's locations over what the last layer says: a step of Adam moves every weight by its learning rate,
which together would carry a narrow component past many levels."""


class SoftmaxHead(nn.Module):
    """A softmax over all levels (van den Oord et al. 2016, arXiv:1609.03499, Sec. 2.2)."""

    num_uniforms = 1

    def __init__(self, num_levels: int, in_features: int) -> None:
        super().__init__()
        scale = in_features**-0.5  # the first law is that of the biases, whatever the features
        self.weight = nn.Parameter(scale * mixed_levels(num_levels, in_features)[None])  # (1, K, S)
        self.bias = nn.Parameter(torch.zeros(1, num_levels))

    def forward(self, h: Tensor) -> Tensor:
        """Logits (R, K) for features (R, S)."""
        return torch.addmm(self.bias[0], h, self.weight[0].T)

    def start_from(self, codes: Tensor) -> None:
        """Start at the log-frequencies of the levels, each counted once more."""
        counts = codes.flatten().bincount(minlength=self.bias.shape[1]) + 1
        self.bias.data[0] = (counts / counts.sum()).log()

    def nll(self, h: Tensor, codes: Tensor) -> Tensor:
        """Minus the sum of `log_prob`: a scalar, nats."""
        return categorical_nll(h[:, None], self.weight, self.bias, codes[:, None])

    def log_prob(self, h: Tensor, codes: Tensor) -> Tensor:
        """Log-probabilities (R,) of levels (R,) given features (R, S), nats."""
        return categorical_log_prob(h[:, None], self.weight, self.bias, codes[:, None])[:, 0]

    def draw(self, h: Tensor, uniforms: Tensor) -> Tensor:
        """Levels (N,) int64 for features (N, S) and uniforms (N, 1)."""
        return draw(self(h), uniforms[:, 0])


class LogisticHead(nn.Module):
    """A mixture of discretised logistics over the levels, with weights, locations and scales for every step."""

    num_uniforms = 2

    def __init__(self, num_levels: int, in_features: int, num_mixtures: int) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.linear = nn.Linear(in_features, 3 * num_mixtures)
        nn.init.normal_(self.linear.weight, std=0.1 * in_features**-0.5)  # the first steps are those of the biases
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of weights, locations and log-scales on the axis from -1 to 1: (R, M) each, for features (R, S)."""
        values: Tensor = self.linear(h)
        logits, mu, log_scale = (values.float() if values.dtype.itemsize < 4 else values).chunk(3, dim=1)
        return logits, LOCATION_GAIN * mu, log_scale.clamp_min(logistic.MIN_LOG_SCALE)

    def start_from(self, codes: Tensor) -> None:
        """Start with equal weights, locations at quantiles of the levels, and scales that join them."""
        x = to_signed(codes.flatten(), self.num_levels)
        num_mixtures = self.linear.out_features // 3
        middle = (torch.arange(num_mixtures, device=x.device) + 0.5) / num_mixtures
        spacing = (x.std() / num_mixtures).clamp_min(1.0 / (self.num_levels - 1))
        logits, mu, log_scale = self.linear.bias.data.chunk(3)
        logits.zero_()
        mu.copy_(torch.quantile(x, middle) / LOCATION_GAIN)
        log_scale.copy_(spacing.log().expand_as(log_scale))

    def nll(self, h: Tensor, codes: Tensor) -> Tensor:
        """Minus the sum of `log_prob`: a scalar, nats."""
        return -self.log_prob(h, codes).sum()

    def log_prob(self, h: Tensor, codes: Tensor) -> Tensor:
        """Log-probabilities (R,) of levels (R,) given features (R, S), nats."""
        logits, mu, log_scale = self(h)
        of_component = logistic.log_prob(codes[:, None], mu, log_scale, levels=self.num_levels)  # (R, M)
        return torch.logsumexp(of_component + F.log_softmax(logits, dim=1), dim=1)

    def draw(self, h: Tensor, uniforms: Tensor) -> Tensor:
        """Levels (N,) int64 for features (N, S) and uniforms (N, 2): of the component, and of the level."""
        logits, mu, log_scale = self(h)
        component = draw(logits, uniforms[:, 0])[:, None]
        mu, log_scale = (values.gather(1, component)[:, 0] for values in (mu, log_scale))
        return logistic.inverted(uniforms[:, 1], mu, log_scale, levels=self.num_levels).long()


def mixed_levels(num_levels: int, width: int) -> Tensor:
    """Random mixtures (K, width), of order one, of smooth features of the level: close levels start alike."""
    features = OrderedLevels(num_levels).table  # (K, F)
    num_features = features.shape[1]
    return features @ (torch.randn(num_features, width) / math.sqrt(num_features))
