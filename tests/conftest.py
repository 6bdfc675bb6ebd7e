"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)  # the tests are small, and threads that wait for each other are slower than one
hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no failure
hypothesis.settings.load_profile("any machine")

TINY_SUITE = """\
schema: genbench.suite/1
name: tiny
version: 1
description: for tests
features: shapes_net
metrics: [frechet_distance, bits_per_dim]
models: [vae]
controls: [real, noise]
tiers:
  smoke:
    dataset: shapes[resolution=8]
    preset: smoke
    samples_seen: 256
    num_samples: 64
    num_reference: 64
    num_likelihood: 16
    train_size: 256
    deadline_seconds: 60.0
    timing: {warmup_steps: 1, min_block_seconds: 0.01, latency_requests: 1}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what needs a CUDA device to one worker, or skip it where there is none, so that all can be asked for."""
    mark = pytest.mark.xdist_group("gpu")
    if not torch.cuda.is_available():
        mark = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(mark)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same global stream."""
    torch.manual_seed(0)


@pytest.fixture
def tiny_suite(tmp_path: Path) -> Path:
    """A suite file that runs in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_SUITE)
    return path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real data, or a skip that says what is missing."""
    given = os.environ.get("GENBENCH_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("GENBENCH_DATA names no folder with real data")
    return Path(given)
