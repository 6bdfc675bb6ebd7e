"""How long the suites take: run with `make benchmarks`."""

from __future__ import annotations

import pytest

from genbench.cli.main import main

pytestmark = pytest.mark.slow


def test_images_smoke(benchmark, tmp_path):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`; `.ci/run` runs the suite itself")
    run = benchmark.pedantic(
        main, args=(["run", "--suite", "images_smoke", "--out", str(tmp_path / "run"), "--fresh"],), rounds=1
    )
    assert run == 0


def test_rendering_50_000_shapes_at_32_pixels(benchmark):
    from genbench.core.dataset import build_dataset
    from genbench.core.spec import parse_ref

    dataset = build_dataset(parse_ref("shapes[resolution=32]"))
    batch = benchmark.pedantic(dataset.load, args=("train", range(50_000)), rounds=1)
    assert batch.x.shape == (50_000, 3, 32, 32)
