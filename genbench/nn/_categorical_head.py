"""Log-probabilities under a wide softmax without ever holding all of its logits, and draws from it.

A softmax over 256 levels for every sub-pixel makes logits several times larger than everything else a
network holds. Here they live for one slice of rows at a time, small enough for the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

SLICE_ELEMENTS = 1 << 18
"""Logits alive at a time: 1 MiB of float32, about the second-level cache of one core."""


def categorical_log_prob(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of the target under softmax(weight_c f + bias_c), per row and group: (R, C) nats.

    Args:
        features: (R, C, S), one feature vector per row and group.
        weight: (C, K, S), one linear map to K logits per group.
        bias: (C, K).
        targets: (R, C) int64 with values 0 .. K-1.
    """
    with torch.autocast(features.device.type, enabled=False):
        columns: list[list[Tensor]] = [[] for _ in range(weight.shape[0])]
        for rows, c in _slices(features, weight):
            log_p = torch.addmm(bias[c], features[rows, c].to(weight.dtype), weight[c].T).log_softmax(1)
            columns[c].append(log_p.gather(1, targets[rows, c, None])[:, 0])
        return torch.stack([torch.cat(column) for column in columns], dim=1)


def categorical_nll(features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Minus the sum of `categorical_log_prob`: a scalar; each logit is computed once for value and gradient."""
    with torch.autocast(features.device.type, enabled=False):
        total: Tensor = _CategoricalNLL.apply(features.to(weight.dtype), weight, bias, targets)
    return total


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Levels (N,) drawn from softmax(logits), (N, K), by inverting the distribution function at (N,) uniforms."""
    cumulated = (logits - logits.amax(1, keepdim=True)).exp().cumsum(1)
    thresholds = uniforms[:, None] * cumulated[:, -1:]
    level = torch.searchsorted(cumulated, thresholds, right=True)[:, 0]
    return level.clamp_(max=logits.shape[1] - 1)  # a uniform just below 1 may round up to the total


class _Saved(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor]


class _CategoricalNLL(torch.autograd.Function):
    """The loss is a scalar, so its gradients are known in the forward pass up to one factor."""

    @staticmethod
    def forward(ctx: _Saved, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        d_features, d_weight, d_bias = torch.empty_like(features), torch.zeros_like(weight), torch.zeros_like(bias)
        total = features.new_zeros((), dtype=torch.float64)  # a sum of millions of terms
        rows_at_once = min(_rows_at_once(weight), len(features))
        room = features.new_empty(2, rows_at_once, weight.shape[1])  # one for all slices: fresh pages cost more
        for rows, c in _slices(features, weight):
            f, target = features[rows, c], targets[rows, c, None]
            logits, log_p = (part[: len(f)] for part in room)
            torch.addmm(bias[c], f, weight[c].T, out=logits)
            torch.log_softmax(logits, 1, out=log_p)
            total -= log_p.gather(1, target).sum(dtype=torch.float64)
            p = torch.softmax(log_p, 1, out=logits)  # equals exp(log_p), and is several times faster on a CPU
            p.scatter_add_(1, target, p.new_full(target.shape, -1.0))  # d nll / d logits = p - onehot
            torch.mm(p, weight[c], out=d_features[rows, c])
            d_weight[c].addmm_(p.T, f)
            d_bias[c] += p.sum(0)
        ctx.save_for_backward(d_features, d_weight, d_bias)
        return total.to(features.dtype)

    @staticmethod
    def backward(ctx: _Saved, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        d_features, d_weight, d_bias = ctx.saved_tensors
        return d_features * grads[0], d_weight * grads[0], d_bias * grads[0], None


def _slices(features: Tensor, weight: Tensor) -> Iterator[tuple[slice, int]]:
    step = _rows_at_once(weight)
    for c in range(weight.shape[0]):
        for start in range(0, features.shape[0], step):
            yield slice(start, start + step), c


def _rows_at_once(weight: Tensor) -> int:
    return max(1, SLICE_ELEMENTS // weight.shape[1])
