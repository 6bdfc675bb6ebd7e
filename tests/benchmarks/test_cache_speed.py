"""Samples of a causal transformer with kept keys and values beside whole passes; in turns, in CPU seconds."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from genbench.nn._categorical_head import draw
from genbench.nn.causal_transformer import CausalTransformer

pytestmark = pytest.mark.slow

N, L, K = 4, 256, 256


@pytest.fixture
def model(benchmark):
    """Four layers of 128 units, off their starting point."""
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    torch.manual_seed(0)
    model = CausalTransformer(num_levels=K, length=L, width=128, num_layers=4, num_heads=4).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _generator():
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def _naive(model):
    """One pass over the whole sequence for each element."""
    uniforms, codes = torch.rand(N, L, generator=_generator()), torch.zeros(N, L, dtype=torch.int64)
    for i in range(L):
        codes[:, i] = draw(model(codes)[:, i], uniforms[:, i])
    return codes


def _seconds(call):
    start = time.process_time()
    value = call()
    return time.process_time() - start, value


@pytest.mark.benchmark(group="key-value cache")
def test_caches_make_samples_of_256_elements_twelve_times_cheaper(benchmark, model):
    pairs = []
    for _ in range(3):  # in turns, so that both see the same machine
        slow, expected = _seconds(lambda: _naive(model))
        fast, found = _seconds(lambda: model.sample(N, generator=_generator()))
        pairs.append((slow, fast))
    same = (found == expected).all(1)
    assert same.all()
    ratio = min(slow for slow, _ in pairs) / min(fast for _, fast in pairs)
    sys.stdout.write(f"\nkept keys and values: {ratio:.1f} x whole passes\n")
    benchmark.extra_info.update(pairs=pairs, ratio=ratio)
    benchmark.pedantic(lambda: model.sample(N, generator=_generator()), rounds=3)
    assert ratio > 12.0, pairs
