"""What many timed rounds say of one subject: a row of a bench. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from genbench.core.bench import (
    QUANTITIES,
    BatchPoint,
    Bench,
    ColdStart,
    Counters,
    Flag,
    Measure,
    Memory,
    Phase,
    Round,
    Variant,
    unit_of,
)
from genbench.core.record import Failure
from genbench.core.spec import Cell
from genbench.harness.round_job import NOT_APPLICABLE
from genbench.prob.rounds import summarise

_COLD_PHASES: tuple[Phase, ...] = ("latency", "throughput", "train")
"""The phase whose cold start a row shows, first choice first: what the first sample costs a new process."""


def summary(cell: Cell, variant: Variant, rounds: Sequence[Round]) -> Bench:
    """The row of a subject.

    Args:
        cell: the subject's.
        variant: how its network ran.
        rounds: all of the subject, points of its sweep and failed ones too.
    """
    full = [done for done in rounds if not done.sweep]
    points = [done for done in rounds if done.sweep]
    dataset = cell.dataset.label
    measures = _measures(full, dataset)
    counters = _counters(full)
    return Bench(
        cell=cell,
        variant=variant,
        measures=measures,
        curve=tuple(_point(done, dataset) for done in points),
        best_batch_size=_best_batch_size(full, points),
        cold=_cold(full),
        memory=_peaks(full),
        counters=counters,
        data_wait=_data_wait(measures),
        seconds_per_evaluation=_seconds_per_evaluation(measures, counters),
        flops_utilisation=_flops_utilisation(cell, measures, full),
        energy_joules_per_image=_energy([done for done in full if done.phase == "throughput"]),
        flags=_flags(full),
        audit=_audit(full),
        weights_sha256=next((done.weights_sha256 for done in rounds if done.weights_sha256 is not None), None),
        error=_error(rounds),
    )


def median_reading(done: Round, name: str) -> float | None:
    """Median of a round's readings of one quantity, None where there are none."""
    readings = done.values.get(name)
    return statistics.median(readings) if readings else None


def _measures(rounds: Sequence[Round], dataset: str) -> dict[str, Measure]:
    return {name: made for name in QUANTITIES if (made := _measure(name, rounds, dataset)) is not None}


def _measure(name: str, rounds: Iterable[Round], dataset: str) -> Measure | None:
    readings = [done.values[name] for done in rounds if done.values.get(name)]
    if not readings:
        return None
    return summarise(readings, name=name, unit=unit_of(name, dataset), better=QUANTITIES[name].better)


def _point(done: Round, dataset: str) -> BatchPoint:
    return BatchPoint(
        batch_size=done.batch_size or 1,
        measure=_measure("sample_images_per_second", [done], dataset),
        memory=done.memory,
        energy_joules_per_image=_energy([done]),
        error=done.error,
    )


def _best_batch_size(full: Sequence[Round], points: Sequence[Round]) -> int | None:
    """The size that was measured in full, else the quickest of the sweep."""
    measured = [done.batch_size for done in full if done.phase == "throughput" and done.values]
    if measured:
        return measured[0]
    rates = {done.batch_size: median_reading(done, "sample_images_per_second") or 0.0 for done in points if done.values}
    return max(rates, key=lambda size: rates[size]) if rates else None


def _cold(rounds: Sequence[Round]) -> ColdStart | None:
    """Median of each part over the rounds of one phase."""
    for phase in _COLD_PHASES:
        seen = [done.cold for done in rounds if done.phase == phase and done.cold is not None]
        if seen:
            parts = [cold.model_dump() for cold in seen]
            return ColdStart(**{name: statistics.median(part[name] for part in parts) for name in parts[0]})
    return None


def _peaks(rounds: Sequence[Round]) -> dict[str, Memory]:
    return next((done.peaks for done in rounds if done.peaks), {})


def _counters(rounds: Sequence[Round]) -> dict[str, Counters]:
    return next((done.counters for done in rounds if done.counters), {})


def _data_wait(measures: dict[str, Measure]) -> float | None:
    """Share of training that waits for data; noise can take it a little below 0."""
    whole, alone = measures.get("train_images_per_second"), measures.get("train_compute_images_per_second")
    return None if whole is None or alone is None else 1 - whole.value / alone.value


def _seconds_per_evaluation(measures: dict[str, Measure], counters: dict[str, Counters]) -> float | None:
    latency, counted = measures.get("latency_seconds"), counters.get("sample")
    if latency is None or counted is None or not counted.network_evaluations:
        return None
    return latency.value / counted.network_evaluations


def _flops_utilisation(cell: Cell, measures: dict[str, Measure], rounds: Sequence[Round]) -> float | None:
    """Operations that training does in a second, as a share of what the device can do in one.

    PyTorch lets convolutions of float32 numbers run in TensorFloat-32, so where there is such a peak it is the one.
    """
    rate = measures.get("train_images_per_second")
    counted = [done for done in rounds if done.flops_per_image is not None and done.environment is not None]
    if rate is None or not counted or cell.device == "cpu":
        return None
    done = counted[0]
    assert done.environment is not None
    assert done.flops_per_image is not None
    from genbench.timing.peaks import peak_flops  # knows types of torch, which no other row needs

    device, precision = done.environment.device, cell.protocol.precision
    peak = peak_flops(device, "tensorfloat32") if precision == "float32" else None
    peak = peak or peak_flops(device, precision)
    return None if peak is None else rate.value * done.flops_per_image / peak


def _energy(rounds: Iterable[Round]) -> float | None:
    """Joules for one image, median over rounds."""
    seen = [
        done.machine.energy_joules / done.images
        for done in rounds
        if done.machine.energy_joules is not None and done.images
    ]
    return statistics.median(seen) if seen else None


def _flags(rounds: Iterable[Round]) -> tuple[Flag, ...]:
    return tuple(dict.fromkeys(flag for done in rounds for flag in done.flags))


def _audit(rounds: Sequence[Round]) -> dict[str, bool]:
    """A proof holds when it held in every round."""
    names = dict.fromkeys(name for done in rounds for name in done.audit)
    found = {name: all(done.audit.get(name, True) for done in rounds) for name in names}
    hashes = [done.samples_sha256 for done in rounds if done.samples_sha256 is not None]
    return {**found, "same_in_every_round": len(set(hashes)) == 1} if len(hashes) > 1 else found


def _error(rounds: Iterable[Round]) -> Failure | None:
    """The first failure; a larger batch that found no memory is a point of the curve, not a failure."""
    for done in rounds:
        point = done.sweep and (done.batch_size or 1) > 1
        if done.error is not None and not point and done.error.type != NOT_APPLICABLE:
            return done.error
    return None
