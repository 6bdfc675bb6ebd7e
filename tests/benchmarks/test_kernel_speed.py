"""The kernel distance beside torch-fidelity's, and what intervals cost; paired, in CPU seconds of one process."""

from __future__ import annotations

import warnings

import pytest
import torch
from cpu_seconds import seconds

from genbench.metrics.kernel_distance import RULES, kernel_distance, kernel_distance_of_subsets
from genbench.metrics.vendi_score import vendi_score
from genbench.prob import discrepancy, sliced
from genbench.prob.sliced import sliced_distance

pytestmark = pytest.mark.slow

NUM, SIZE = 5000, 2048


@pytest.fixture
def features(benchmark):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(64, SIZE, generator=generator) * 0.1
    drawn = [torch.randn(NUM, 64, generator=generator) @ mix for _ in range(2)]
    noise = [torch.randn(NUM, SIZE, generator=generator) * 0.1 for _ in range(2)]
    return (drawn[0] * 1.05 + noise[0] + 0.32).relu(), (drawn[1] + noise[1] + 0.3).relu()


def test_torch_fidelitys_own_subsets_in_a_quarter_of_its_time(benchmark, features):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_kid import kid_features_to_metric

    pairs = []
    for _ in range(3):  # in turns, so that both see the same machine
        theirs, expected = seconds(
            lambda: kid_features_to_metric(*features, kid_subsets=100, kid_subset_size=1000, verbose=False)
        )
        ours, found = seconds(lambda: kernel_distance_of_subsets(*features, rule=RULES["torch-fidelity"]))
        assert found.mean.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
        pairs.append((theirs, ours))
    best = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    benchmark.extra_info.update(pairs=pairs, ratio=best)
    benchmark.pedantic(kernel_distance_of_subsets, args=features, kwargs={"rule": RULES["torch-fidelity"]}, rounds=1)
    assert best > 4.0, pairs


def test_the_interval_costs_less_than_a_fifth_of_a_sliced_distance(benchmark, features, monkeypatch):
    whole, _ = seconds(lambda: sliced_distance(*features, num_directions=1000, seed=0))
    monkeypatch.setattr(sliced, "INFLUENCE_DIRECTIONS", 1)
    bare, _ = seconds(lambda: sliced_distance(*features, num_directions=1000, seed=0))
    benchmark.extra_info.update(with_interval=whole, without=bare)
    benchmark.pedantic(lambda: None, rounds=1)
    assert whole < 1.2 * bare


def test_the_interval_costs_less_than_a_fifth_of_a_kernel_distance(benchmark, features, monkeypatch):
    whole, _ = seconds(lambda: kernel_distance(*features))
    monkeypatch.setattr(discrepancy, "_square_sum", lambda _: 0.0)
    bare, _ = seconds(lambda: kernel_distance(*features))
    benchmark.extra_info.update(with_interval=whole, without=bare)
    benchmark.pedantic(lambda: None, rounds=1)
    assert whole < 1.2 * bare


def test_the_interval_costs_less_than_a_fifth_of_the_time_of_a_vendi_score(benchmark, features):
    """In turns; a score of order 0 has no error."""
    taken = [[seconds(lambda q=q: vendi_score(features[0], q=q))[0] for q in (0.0, 1.0)] for _ in range(4)]
    plain, whole = (min(each) for each in zip(*taken, strict=True))
    benchmark.extra_info.update(with_interval=whole, without=plain)
    benchmark.pedantic(lambda: None, rounds=1)
    assert whole < 1.25 * plain, taken
