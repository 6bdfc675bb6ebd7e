"""One second of sound from queues beside passes over everything; in turns, in CPU seconds."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from genbench.core.model import build_model
from genbench.data.tones import Tones
from genbench.models.autoregressive.wavenet import WaveNet

pytestmark = pytest.mark.slow

LENGTH = 8192  # 1.024 s at 8 kHz
PASSES = 6


@pytest.fixture
def model(benchmark):
    """`small`, as it is built, for one second of sound."""
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    torch.manual_seed(0)
    return build_model(WaveNet, Tones(length=LENGTH).spec, preset="small", settings={}, owner="wavenet").eval()


def _cpu_seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


@torch.no_grad()
def _pass(model, codes):
    """What the naive sampler does for one sample in time; each costs the same, whatever was drawn before."""
    model.head.draw(model.stack(codes, None)[:, -1], torch.rand(1, 1))


@pytest.mark.benchmark(group="queue of dilated convolutions")
def test_queues_make_a_second_of_sound_fifty_times_cheaper(benchmark, model):
    """That both draw the same stands in `tests/models/test_wavenet.py`.

    A naive sampler passes over what is there so far, 8,192 times: the mean of a few lengths stands for all.
    """
    whole = torch.randint(256, (1, LENGTH))
    in_reach = whole[:, : model.stack.receptive_field]  # the least that a pass without memory can do
    lengths = range(LENGTH // 16, LENGTH + 1, LENGTH // 8)  # the middle of each eighth of the second
    turns = []
    for _ in range(3):  # in turns, so that all see the same machine
        naive = LENGTH * _cpu_seconds(lambda: [_pass(model, whole) for _ in range(PASSES)]) / PASSES
        growing = LENGTH * _cpu_seconds(lambda: [_pass(model, whole[:, :end]) for end in lengths]) / len(lengths)
        windowed = LENGTH * _cpu_seconds(lambda: [_pass(model, in_reach) for _ in range(8 * PASSES)]) / (8 * PASSES)
        queued = _cpu_seconds(lambda: model.sample(1, generator=torch.Generator().manual_seed(0)))
        turns.append((naive, growing, windowed, queued))
    naive, growing, windowed, queued = (min(seconds) for seconds in zip(*turns, strict=True))
    ratios = naive / queued, growing / queued, windowed / queued
    benchmark.extra_info.update(turns=turns, ratios=ratios)
    benchmark.pedantic(lambda: model.sample(1, generator=torch.Generator().manual_seed(0)), rounds=1)
    sys.stdout.write(
        f"\nqueues: {ratios[0]:.0f} x whole passes, {ratios[1]:.0f} x growing, {ratios[2]:.1f} x windows\n"
    )
    assert ratios[1] > 50.0, turns  # whole passes cost more still
    assert ratios[2] > 4.0, turns
