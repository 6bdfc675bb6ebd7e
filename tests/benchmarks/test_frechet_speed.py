"""Frechet distance from moments of 2048 features, beside other programs on the same moments.

Run with `make benchmarks`, or `OMP_NUM_THREADS=1 pytest --benchmark-enable tests/benchmarks/test_frechet_speed.py`.
Processor time of one process, which other programs on the machine disturb least; genbench is timed
before and after each peer.
"""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from cpu_seconds import seconds

from genbench.prob.frechet import frechet, frechet_between, frechet_distance, frechet_distance_to
from genbench.prob.moments import moments_of

NUM, SIZE = 10_000, 2048


@pytest.fixture(scope="module", autouse=True)
def _enabled(request):
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("minutes long: --benchmark-enable runs it")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sides(_enabled):
    """Features (N, F) float32 and moments of each of two sets, of falling variances and non-negative."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(SIZE, SIZE, generator=generator) * torch.logspace(0, -1.5, SIZE)
    parts = [(torch.randn(NUM, SIZE, generator=generator) @ mix * 0.02 + 0.3).relu() for _ in range(2)]
    return [(part, (found.mean, found.covariance())) for part in parts for found in (moments_of(part),)]


def _ours(sides):
    return seconds(lambda: frechet_distance(*sides[0][1], *sides[1][1]), rounds=3)


def _paired(sides, peer):
    first, value = _ours(sides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, other = seconds(peer)
    ours = max(first, _ours(sides)[0])
    assert value == pytest.approx(other, rel=1e-9)
    return theirs / ours, ours, theirs


def test_costs_at_most_five_matrix_products(sides, record_property, capsys):
    cov1, cov2 = sides[0][1][1], sides[1][1][1]
    product, _ = seconds(lambda: cov1 @ cov2, rounds=3)
    ours, _ = _ours(sides)
    record_property("products", ours / product)
    _tell(f"genbench {ours:.2f} s, a product of {SIZE} x {SIZE} {product:.2f} s: {ours / product:.1f} products", capsys)
    assert ours <= 5.0 * product


def test_beside_torch_fidelity(sides, record_property, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("torch_fidelity.metric_fid")
    stats = [{"mu": mean, "sigma": covariance} for _, (mean, covariance) in sides]

    def peer():
        return module.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]

    _report(_paired(sides, peer), "torch-fidelity", record_property, capsys)


def test_beside_pytorch_fid(sides, record_property, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("pytorch_fid.fid_score")
    moments = [part for _, side in sides for part in side]
    paired = _paired(sides, lambda: module.calculate_frechet_distance(*moments))
    _report(paired, "pytorch-fid", record_property, capsys)


def test_what_error_and_bias_add(sides, record_property, capsys):
    """In turns, so that a busy machine slows all of them."""
    features, (mean2, cov2) = sides[0][0], sides[1][1]
    calls = {
        "plain": lambda: frechet_distance_to(features, mean2, cov2),
        "error": lambda: frechet(features, mean2, cov2),
        "error and bias": lambda: frechet(features, mean2, cov2, num2=NUM, bias="gaussian"),
        "moments": lambda: frechet_distance(*sides[0][1], mean2, cov2),
        "moments and bias": lambda: frechet_between(*sides[0][1], mean2, cov2, num1=NUM, num2=NUM),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(4):
        for name, call in calls.items():
            taken[name].append(seconds(call)[0])
    best = {name: min(seconds) for name, seconds in taken.items()}
    share = 1.0 - best["plain"] / best["error"]
    record_property("error_share", share)
    record_property("bias_share", 1.0 - best["moments"] / best["moments and bias"])
    _tell("; ".join(f"{name} {seconds:.2f} s" for name, seconds in best.items()), capsys)
    _tell(f"the error takes {share:.0%} of the time with it at {NUM} samples", capsys)
    assert share < 0.2
    assert best["error and bias"] < 1.5 * best["plain"]


def _report(paired, peer, record_property, capsys):
    ratio, ours, theirs = paired
    record_property("ratio", ratio)
    _tell(f"genbench {ours:.2f} s, {peer} {theirs:.2f} s of processor time: {ratio:.1f}x", capsys)
    assert ratio > 1.0


def _tell(line, capsys):
    with capsys.disabled():
        sys.stdout.write(f"\n{line}")
