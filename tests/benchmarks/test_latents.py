"""Mutual information gap of 10 000 codes, beside the loop over pairs of the field: run with `make benchmarks`."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from genbench.metrics.mig import mig

_SIZES = (3, 6, 40, 32, 32)  # shape, scale, orientation and place of dSprites


@pytest.fixture(scope="module")
def latents():
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, size, 10_000) for size in _SIZES], axis=1)
    codes = rng.normal(size=(10_000, 10))
    codes[:, :5] += factors
    return codes.astype(np.float32), factors


def _loop(codes, factors):
    bins = np.stack([np.digitize(z, np.histogram(z, 20)[1][:-1]) for z in codes.T])
    told = np.array([[mutual_info_score(factor, row) for factor in factors.T] for row in bins])
    entropy = np.array([mutual_info_score(factor, factor) for factor in factors.T])
    ranked = np.sort(told, axis=0)
    return float(((ranked[-1] - ranked[-2]) / entropy).mean())


@pytest.mark.benchmark(group="mig")
def test_mig_with_its_interval(benchmark, latents):
    assert benchmark(mig, *latents).ci95 is not None


@pytest.mark.benchmark(group="mig")
def test_mig_by_a_loop_over_pairs(benchmark, latents):
    assert benchmark(_loop, *latents) == pytest.approx(mig(*latents).value, abs=1e-12)
