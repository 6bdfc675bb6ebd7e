"""Speeds that were measured while the machine had other work: shown, remarked, and not ranked."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.core.bench import Flag
from genbench.report._rows import Subject, machine, timed_on

SPEEDS = frozenset({"train_images_per_second", "sample_images_per_second", "latency_seconds", "real_time_factor"})
"""Costs that other work on the machine makes worse, and that are ranked."""
CROWDED = 1.5
"""Processes ready to run for each processor from which a machine counts as busy: the cell before, which used every
processor, is still in the mean of the minute when the next begins, and makes 1."""
_DISTURBED: frozenset[Flag] = frozenset({"contended", "canary_drift"})
"""What timed rounds say of a machine with other work; their own flags have more."""


def busy(row: Subject, speed: str, home: str) -> bool:
    """Whether the machine had other work when a speed of a row was measured.

    Args:
        row: of a table.
        speed: one of `SPEEDS`.
        home: the machine whose speeds are ranked.
    """
    if _by_rounds(row, speed, home):
        return bool(_flags(row))
    load, processors = _crowd(row, home)
    return load > CROWDED * processors


def busy_remarks(rows: Sequence[Subject], home: str) -> list[str]:
    """Which speeds are not ranked because the machine was busy, and how that is known."""
    timed = [row for row in rows if row.is_model and row.records]
    found = [(row, speed) for row in timed for speed in sorted(SPEEDS) if busy(row, speed, home)]
    if not found:
        return []
    labels = list(dict.fromkeys(row.label for row, _ in found))
    flags = [flag for row, speed in found if _by_rounds(row, speed, home) for flag in _flags(row)]
    crowds = [_crowd(row, home) for row, speed in found if not _by_rounds(row, speed, home)]
    reasons = [f"rounds are flagged {', '.join(dict.fromkeys(flags))}"] if flags else []
    if crowds:
        load, processors = max(crowds)
        counted = "1 processor" if processors == 1 else f"{processors} processors"
        reasons.append(f"up to {load:.1f} processes were ready to run, on {counted}")
    whose = "speeds" if len(labels) == len(timed) else f"speeds of {', '.join(labels)}"
    says = "were measured while the machine was busy, so they are not ranked and none is called best"
    return [f"{whose} {says}: {'; '.join(reasons)}"]


def _by_rounds(row: Subject, speed: str, home: str) -> bool:
    """Whether a speed comes from timed rounds and not from the clocks of the cells."""
    return row.speeds is not None and row.speeds_on == timed_on(row, home) and speed in row.speeds.measures


def _flags(row: Subject) -> list[Flag]:
    return [] if row.speeds is None else [flag for flag in row.speeds.flags if flag in _DISTURBED]


def _crowd(row: Subject, home: str) -> tuple[float, int]:
    """Processes ready to run and processors of the fullest of the records that timed a row; 0 and 1 where unknown."""
    places = [record.environment for record in row.records if machine(record.environment) == timed_on(row, home)]
    known = [
        (place.load_average, place.processors)
        for place in places
        if place is not None and place.load_average is not None and place.processors is not None
    ]
    return max(known, key=lambda crowd: crowd[0] / crowd[1], default=(0.0, 1))
