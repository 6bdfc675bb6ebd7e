"""The noise floor of scores, from several runs of the same code."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from genbench.core.baseline import Entry, NoiseFloor, Row, by_row


def noise_floors(runs: Sequence[Sequence[Entry]]) -> list[NoiseFloor]:
    """How far every score of every row moves from run to run.

    Where runs share seeds, each seed gives deviations from its own mean, and they are pooled:

        s^2 = sum_seed sum_run (x - mean_seed)^2 / sum_seed (runs of the seed - 1)

    On one machine, runs with the same seeds agree to the last digit, so this floor is that of other machines, versions
    and numbers of threads. Where no seed is shared, the deviation is over seeds, and the floor is what luck in
    training does: the fairest one for a change that merely reorders sums.

    Args:
        runs: entries of the gate `quality` of each run; failed ones are left out.
    """
    good = [entry for run in runs for entry in run if entry.error is None]
    floors = []
    for row, entries in by_row(good).items():
        names = dict.fromkeys(score.name for entry in entries for score in entry.scores)
        floors += [floor for name in names if (floor := _floor(row, name, entries)) is not None]
    return floors


def _floor(row: Row, name: str, entries: Sequence[Entry]) -> NoiseFloor | None:
    """None where there is one value only."""
    groups: dict[int, list[float]] = {}
    for entry in entries:
        values = [score.value for score in entry.scores if score.name == name]
        groups.setdefault(entry.cell.seed, []).extend(values)
    shared = any(len(values) > 1 for values in groups.values())
    pools = list(groups.values()) if shared else [[value for values in groups.values() for value in values]]
    degrees = sum(max(0, len(values) - 1) for values in pools)
    if degrees == 0:
        return None
    squares = sum(float(((np.array(values) - np.mean(values)) ** 2).sum()) for values in pools if values)
    return NoiseFloor(
        label=row.label,
        dataset=row.dataset,
        score=name,
        deviation=math.sqrt(squares / degrees),
        degrees=degrees,
        num_runs=max(len(values) for values in pools),
        across_seeds=not shared,
    )
