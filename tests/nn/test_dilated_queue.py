"""Queues hold what the convolutions look back at: the same features step by step as all at once."""

import pytest
import torch
import torch.nn.functional as F

from genbench.nn.dilated_queue import DilatedQueue, QueueWeights, sample_with_queues

N, T, WIDTH, SKIP, LEVELS = 3, 40, 4, 5, 6


def weights_of(dilations, num_taps):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 2.0

    num_layers = len(dilations)
    return QueueWeights(
        dilations=dilations,
        embedding=drawn(LEVELS, WIDTH),
        past=drawn(num_taps - 1, num_layers, WIDTH, 2 * WIDTH),
        here=drawn(num_layers, WIDTH, 2 * WIDTH),
        gate_bias=drawn(num_layers, 2 * WIDTH),
        residual=drawn(num_layers - 1, WIDTH, WIDTH),
        skip=drawn(num_layers * WIDTH, SKIP),
        skip_bias=drawn(SKIP),
        hidden=drawn(SKIP, SKIP),
        hidden_bias=drawn(SKIP),
    )


def by_convolutions(weights, x, told):
    """Features (N, T, S) for inputs (N, T, w), by torch's own dilated convolution."""
    h, gated = x.transpose(1, 2), []
    for layer, dilation in enumerate(weights.dilations):
        taps = torch.cat([weights.past[:, layer], weights.here[layer][None]])  # (k, w, 2w)
        kernel = taps.permute(2, 1, 0)
        padded = F.pad(h, ((len(taps) - 1) * dilation, 0))
        gates = F.conv1d(padded, kernel, weights.gate_bias[layer], dilation=dilation) + told[:, layer, :, None]
        f, g = gates.chunk(2, dim=1)
        gated.append(f.tanh() * g.sigmoid())
        if layer + 1 < len(weights.dilations):
            h = h + torch.einsum("nwt,wv->nvt", gated[-1], weights.residual[layer])
    skip = torch.einsum("nlt,ls->nts", torch.cat(gated, dim=1), weights.skip) + weights.skip_bias
    return (skip.relu() @ weights.hidden + weights.hidden_bias).relu()


@pytest.mark.parametrize(
    ("dilations", "num_taps"), [((1,), 2), ((1, 2, 4, 8), 2), ((1, 2, 4, 1, 2, 4), 2), ((1, 3, 2), 3), ((5, 2), 4)]
)
def test_features_step_by_step_are_those_of_dilated_convolutions(dilations, num_taps):
    weights = weights_of(dilations, num_taps)
    x, told = torch.randn(N, T, WIDTH).double(), torch.randn(N, len(dilations), 2 * WIDTH).double()
    queue = DilatedQueue(weights, told, N)
    found = torch.stack([queue.step(x[:, t]) for t in range(T)], dim=1)
    torch.testing.assert_close(found, by_convolutions(weights, x, told), rtol=1e-12, atol=1e-12)


def test_what_is_drawn_goes_in_as_the_input_of_the_next_step():
    weights = weights_of((1, 2, 4), 2)
    uniforms = torch.rand(N, T, 1).double()

    def draw(h, u):
        return (h.sum(1) * 3.0 + LEVELS * u[:, 0]).long() % LEVELS

    codes = sample_with_queues(weights, uniforms, None, draw)
    x = F.pad(weights.embedding[codes], (0, 0, 1, -1))  # each step sees the level before it, the first sees zeros
    h = by_convolutions(weights, x, torch.zeros(N, 3, 2 * WIDTH).double())
    assert torch.equal(codes, torch.stack([draw(h[:, t], uniforms[:, t]) for t in range(T)], dim=1))


def test_many_samples_are_drawn_as_few_are(monkeypatch):
    weights, uniforms = weights_of((1, 2), 2), torch.rand(7, T, 1).double()
    told = torch.randn(7, 2, 2 * WIDTH).double()

    def draw(h, u):
        return (h.sum(1) * 3.0 + LEVELS * u[:, 0]).long() % LEVELS

    together = sample_with_queues(weights, uniforms, told, draw)
    monkeypatch.setattr("genbench.nn.dilated_queue.SAMPLES_AT_ONCE", 3)
    assert torch.equal(sample_with_queues(weights, uniforms, told, draw), together)
