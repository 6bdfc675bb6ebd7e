"""The search for a batch size: where it goes on and where it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from genbench.harness.batch_search import BatchSearch


def _sizes(rate: Callable[[int], float | None], *, max_batch: int = 1024) -> tuple[list[int], int | None]:
    search, tried = BatchSearch(max_batch), []
    while search.size is not None:
        tried.append(search.size)
        search.note(rate(search.size))
    return tried, search.best


@pytest.mark.parametrize(
    ("rate", "tried", "best"),
    [
        (lambda size: float(size), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], 1024),  # gains to the end
        (lambda size: min(size, 8) * 1.0, [1, 2, 4, 8, 16, 32], 8),  # two sizes without gain
        (lambda size: min(size, 8) + 0.01 * size, [1, 2, 4, 8, 16, 32], 32),  # 1 % is no gain, but still the best
        (lambda size: None if size > 4 else size * 1.0, [1, 2, 4, 8], 4),  # out of memory ends it
        (lambda size: None, [1], None),
        (lambda size: 1.0 / size, [1, 2, 4], 1),  # slower twice
    ],
)
def test_sizes_double_until_that_stops_paying(rate, tried, best):
    assert _sizes(rate) == (tried, best)


def test_a_single_size_without_gain_does_not_end_the_search():
    rates = {1: 1.0, 2: 2.0, 4: 1.9, 8: 4.0, 16: 4.01, 32: 4.02}
    assert _sizes(rates.__getitem__, max_batch=32) == ([1, 2, 4, 8, 16, 32], 32)


def test_the_search_never_passes_the_largest_size():
    assert _sizes(lambda size: float(size), max_batch=5) == ([1, 2, 4], 4)
