"""The search for the batch size with the highest rate: double it until that stops paying. Imports no torch."""

from __future__ import annotations

LEAST_GAIN = 0.03
"""A batch size must beat all smaller ones by this share to count as a gain."""
_PATIENCE = 2


class BatchSearch:
    """Sizes 1, 2, 4, ... of one subject, and when to stop.

    The search ends at `max_batch`, at the first size that gives no rate (out of memory is the usual reason), or after
    two sizes in a row that gain less than 3 % on the best one before them.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch, self._size, self._without_gain, self._best_rate = max_batch, 1, 0, 0.0
        self.best: int | None = None
        """The size with the highest rate so far, None before the first."""

    @property
    def size(self) -> int | None:
        """The size to measure next, None when the search is over."""
        over = self._size > self._max_batch or self._without_gain >= _PATIENCE
        return None if over else self._size

    def note(self, rate: float | None) -> None:
        """Take in the rate at the present size; None when there was none."""
        if rate is None:
            self._size = self._max_batch + 1
            return
        gained = rate >= self._best_rate * (1 + LEAST_GAIN)
        self._without_gain = 0 if gained else self._without_gain + 1
        if rate > self._best_rate:
            self._best_rate, self.best = rate, self._size
        self._size *= 2
