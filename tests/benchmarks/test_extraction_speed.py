"""Images per second of `inception_v3` beside torch-fidelity's extractor: one run, rounds interleaved, CPU time.

Run with `OMP_NUM_THREADS=1 pytest tests/benchmarks/test_extraction_speed.py --benchmark-enable -s`.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest
import torch
from cpu_seconds import seconds

from genbench.core.features import build_features
from genbench.core.spec import Ref

sys.path.insert(0, str(Path(__file__).parents[1] / "features"))
from random_inception import write_random_inception

pytestmark = pytest.mark.slow
ROUNDS, BATCH, SIDE = 3, 32, 32
LEAST = {"fast": 1.6, "exact": 1.15}
"""Speed relative to torch-fidelity's on one thread."""


def test_extraction_is_faster_than_torch_fidelitys(benchmark, tmp_path):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights = str(write_random_inception(tmp_path / "random.pth"))
    extractors = {
        arithmetic: build_features(Ref(name="inception_v3", config={"weights": weights, "arithmetic": arithmetic}))
        for arithmetic in LEAST
    }
    extractors["torch_fidelity"] = peer.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
    )
    images = torch.randint(256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    taken: dict[str, list[float]] = {name: [] for name in extractors}
    for extractor in extractors.values():
        extractor(images[:4])  # warm-up
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(ROUNDS):
        for name, extractor in extractors.items():
            taken[name].append(seconds(lambda extractor=extractor: extractor(images))[0])
    benchmark.pedantic(extractors["fast"], args=(images[:4],), rounds=1)
    torch.set_num_threads(before)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ratios = {name: medians["torch_fidelity"] / median for name, median in medians.items()}
    benchmark.extra_info.update({f"ratio_{name}": ratio for name, ratio in ratios.items()})
    for name, median in medians.items():
        sys.stdout.write(f"\n{name}: {BATCH / median:.2f} images/s, {ratios[name]:.2f} x torch-fidelity")
    for name, least in LEAST.items():
        assert ratios[name] >= least, ratios
