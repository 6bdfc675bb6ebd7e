"""Generation from a stack of dilated causal convolutions with queues: every feature is computed once.

Fast Wavenet Generation Algorithm. Tom Le Paine, Pooya Khorrami, Shiyu Chang, Yang Zhang, Prajit Ramachandran, Mark A.
Hasegawa-Johnson, Thomas S. Huang, 2016. arXiv:1611.09482

A layer with dilation d needs, beside its present input, those of d, 2d, ... steps ago. They wait in a queue of its
own, here a ring: the slot that the oldest input leaves is where the present one goes, so nothing is ever moved. What
the past says to all layers is gathered at once, in one product of matrices for each tap; only the present has to
climb from layer to layer. The work in Python is per step and layer, never per sample, and no step waits for the
device.

Symbols: `N` samples, `T` steps, `L` layers, `k` taps of a kernel, `w` width, `S` width of the skip sum, `K` levels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SAMPLES_AT_ONCE = 512
"""Samples that advance together; more of them overflow the processor's cache and gain nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueueWeights:
    """Weights of a stack as matrices from inputs to outputs."""

    dilations: tuple[int, ...]
    embedding: Tensor
    """(K, w), what goes in for each level."""
    past: Tensor
    """(k - 1, L, w, 2w), taps on earlier inputs, the earliest first."""
    here: Tensor
    """(L, w, 2w), the tap on the present input."""
    gate_bias: Tensor
    """(L, 2w)."""
    residual: Tensor
    """(L - 1, w, w), from the gated features of a layer to the input of the next."""
    skip: Tensor
    """(L * w, S), from the gated features of all layers."""
    skip_bias: Tensor
    hidden: Tensor
    """(S, S)."""
    hidden_bias: Tensor


class DilatedQueue:
    """The state of N sequences that grow step by step; to be used without gradients.

    Args:
        weights: of the stack.
        told: (N, L, 2w), what conditions add to the gates of each layer; None is nothing.
        num_samples: N.
    """

    def __init__(self, weights: QueueWeights, told: Tensor | None, num_samples: int) -> None:
        num_layers, width, _ = weights.here.shape
        zeros = weights.here.new_zeros
        self._weights, self._step = weights, 0
        num_past = weights.past.shape[0]
        self._ring = zeros(sum(num_past * dilation for dilation in weights.dilations), num_samples, width)
        slots = _slots(weights.dilations, num_past, device=weights.here.device)
        self._slots = [step.unbind(0) for step in slots.unbind(0)]
        self._past = weights.past.unbind(0)
        base = weights.gate_bias[:, None].expand(-1, num_samples, -1)
        self._base = (base if told is None else base + told.transpose(0, 1)).contiguous()  # (L, N, 2w)
        self._inputs = zeros(num_layers, num_samples, width)
        self._z = zeros(num_samples, num_layers * width)
        inputs = self._inputs.unbind(0)
        following = [*zip(inputs[1:], weights.residual.unbind(0), strict=True), None]
        self._first = inputs[0]
        self._layers = list(
            zip(inputs, weights.here.unbind(0), self._z.chunk(num_layers, dim=1), following, strict=True)
        )

    def step(self, x: Tensor) -> Tensor:
        """Features (N, S) of the present step, whose input is x (N, w); the state moves on."""
        weights, slots = self._weights, self._slots[self._step % len(self._slots)]
        gates = self._base
        for tap, past in zip(slots, self._past, strict=True):
            gates = torch.baddbmm(gates, self._ring.index_select(0, tap), past)  # (L, N, 2w)
        self._first.copy_(x)
        for before, (own, here, z, following) in zip(gates.unbind(0), self._layers, strict=True):
            f, g = torch.addmm(before, own, here).chunk(2, dim=1)
            torch.mul(f.tanh(), g.sigmoid(), out=z)
            if following is not None:
                torch.addmm(own, z, following[1], out=following[0])
        self._ring.index_copy_(0, slots[0], self._inputs)  # in place of the oldest, which was read above
        self._step += 1
        skip = torch.addmm(weights.skip_bias, self._z, weights.skip).relu_()
        return torch.addmm(weights.hidden_bias, skip, weights.hidden).relu_()


@torch.no_grad()
def sample_with_queues(
    weights: QueueWeights, uniforms: Tensor, told: Tensor | None, draw: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Draw sequences step by step: (N, T) int64.

    The input of a step is the embedding of the level before it, zeros for the first.

    Args:
        weights: of the stack.
        uniforms: (N, T, U), the randomness of every step.
        told: (N, L, 2w), what conditions add to the gates, or None.
        draw: features (N, S) and uniforms (N, U) of one step to levels (N,) int64.
    """
    chunks = uniforms.split(SAMPLES_AT_ONCE)
    conditions: Sequence[Tensor | None] = [None] * len(chunks) if told is None else told.split(SAMPLES_AT_ONCE)
    return torch.cat([_chunk(weights, *pair, draw) for pair in zip(chunks, conditions, strict=True)])


def _chunk(
    weights: QueueWeights, uniforms: Tensor, told: Tensor | None, draw: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    num_samples, num_steps, _ = uniforms.shape
    queue = DilatedQueue(weights, told, num_samples)
    codes = torch.zeros(num_steps, num_samples, dtype=torch.int64, device=uniforms.device)
    x = weights.embedding.new_zeros(num_samples, weights.embedding.shape[1])
    for code, u in zip(codes, uniforms.transpose(0, 1).contiguous(), strict=True):
        code.copy_(draw(queue.step(x), u))
        x = weights.embedding.index_select(0, code)
    return codes.T.contiguous()


def _slots(dilations: tuple[int, ...], num_past: int, *, device: torch.device) -> Tensor:
    """Where the inputs of earlier steps lie in the ring, for every step of the common period: (P, k - 1, L) int64.

    The ring of a layer holds its last R = (k - 1) d inputs, that of step s at s mod R; tap j reads t - (k - 1 - j) d.
    """
    rings = torch.tensor([num_past * dilation for dilation in dilations])
    starts = rings.cumsum(0) - rings
    step = torch.arange(math.lcm(*rings.tolist()))[:, None, None]
    lag = torch.arange(num_past, 0, -1)[:, None] * torch.tensor(dilations)  # (k - 1, L)
    return (starts + (step - lag) % rings).to(device)
