"""A bench as tables: what every model costs, with the noise of each number. For terminals and as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from genbench.core.bench import BatchPoint, Bench, BenchFile, Flag, Measure, Memory
from genbench.core.units import example_of, kind_on, rate_unit
from genbench.report._numbers import MISSING, beside, count, like, significant
from genbench.report.markdown import escape_markdown

_ENOUGH_ROUNDS = 3
"""Rounds behind a `±`; below, the number of rounds stands in its place."""
_FLAGS: dict[Flag, str] = {
    "throttled": "heat or a power brake held the clock down",
    "contended": "another process used the device",
    "host_bound": "the host kept the device waiting",
    "warmup_unstable": "readings still changed when warm-up had to end",
    "canary_drift": "a fixed workload took another time after the round than before",
    "suspicious_fast": "a proof that the work was done failed",
}
assert set(_FLAGS) == set(get_args(Flag))
_UNBOUNDED = 10_000


@dataclasses.dataclass(frozen=True)
class BenchTable:
    """Cells of text under a header; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def bench_tables(file: BenchFile) -> tuple[BenchTable, ...]:
    """The table of all subjects, and the curve over batch sizes if there is one; columns without a number are left out.

    Args:
        file: what `genbench bench --json` wrote.
    """
    kind = _kind(file.results)
    names = {name: name.format(rate=rate_unit(kind), example=example_of(kind)) for name in _COLUMNS}
    columns = {names[name]: [show(row) for row in file.results] for name, show in _COLUMNS.items()}
    shown = {name: cells for name, cells in columns.items() if any(cell != MISSING for cell in cells)}
    if not shown:
        return _curve(file.results)
    rows = tuple(
        (row.label, *cells) for row, cells in zip(file.results, zip(*shown.values(), strict=True), strict=True)
    )
    title = f"bench on {file.environment.fingerprint}"
    return (BenchTable(title, ("model", *shown), rows), *_curve(file.results))


def bench_notes(file: BenchFile) -> tuple[str, ...]:
    """What must be said beside the tables: failures first, then audits and flags, then how to read the numbers."""
    results = file.results
    failed = [f"{row.label}: {_failure(row)}" for row in results if row.error is not None]
    proofs = [f"{row.label}: audit: {_proofs(row.audit)}" for row in results if row.audit]
    proofs += [f"{row.label}: trained weights {row.weights_sha256[:12]}" for row in results if row.weights_sha256]
    flags = dict.fromkeys(flag for row in results for flag in row.flags)
    meanings = [f"{flag}: {_FLAGS[flag]}" for flag in flags]
    return (*failed, *proofs, *meanings, *_reading(results))


def bench_markdown(file: BenchFile) -> str:
    """Tables and notes as GitHub Markdown; ends with a newline."""
    lines: list[str] = []
    for table in bench_tables(file):
        cells = [[escape_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
        rule = ":--" + " | --:" * (len(table.header) - 1)
        head, *rows = (f"| {' | '.join(row)} |" for row in cells)
        lines += [f"### {escape_markdown(table.title)}", "", head, f"| {rule} |", *rows, ""]
    lines += [f"- {escape_markdown(note)}" for note in bench_notes(file)]
    return "\n".join(lines).rstrip("\n") + "\n"


def print_bench(file: BenchFile, console: Console) -> None:
    """Print tables and notes; a table that is too wide is split into several below each other."""
    for table in bench_tables(file):
        console.print(Text(table.title, style="bold"))
        for part in _parts(table, console):
            console.print(part)
            console.print()
    for note in bench_notes(file):
        console.print(Text(note, style="dim"), soft_wrap=True)


def _parts(table: BenchTable, console: Console) -> Iterator[Table]:
    """As few tables as fit the width, each with the names of the rows."""
    waiting = list(range(1, len(table.header)))
    while waiting:
        number = next((n for n in range(len(waiting), 1, -1) if _fits(_rich(table, waiting[:n]), console)), 1)
        yield _rich(table, waiting[:number])
        waiting = waiting[number:]


def _fits(table: Table, console: Console) -> bool:
    return Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum <= console.width


def _rich(table: BenchTable, columns: Sequence[int]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    made.add_column(table.header[0], overflow="fold")
    for column in columns:
        made.add_column(Text(table.header[column]), justify="right", no_wrap=True, vertical="bottom")
    for row in table.rows:
        made.add_row(Text(row[0]), *(Text(row[column]) for column in columns))
    return made


def _rate(name: str) -> Callable[[Bench], str]:
    def show(row: Bench) -> str:
        measure = row.measures.get(name)
        return MISSING if measure is None else _with_noise(measure)

    return show


def _with_noise(measure: Measure) -> str:
    """`1,190 ± 40`: half the 95 % interval over rounds; `1,190 (n=1)` where there is none."""
    text, rounds = significant(measure.value), len(measure.medians)
    if measure.ci95 is None or rounds < _ENOUGH_ROUNDS:
        return f"{text} (n={rounds})"
    half = (measure.ci95[1] - measure.ci95[0]) / 2
    return f"{text} ± {f'{half:,.0f}' if ',' in text and half >= 1 else beside(half, text)}"


def _latency(quantile: str) -> Callable[[Bench], str]:
    def show(row: Bench) -> str:
        measure = row.measures.get("latency_seconds")
        found = None if measure is None else measure.quantiles.get(quantile)
        if found is None:
            return MISSING
        value, low, high = found
        text = significant(1e3 * value)
        if low is None or high is None:
            return text
        return f"{text} [{like(1e3 * low, text)}, {like(1e3 * high, text)}]"

    return show


def _number(value: float | None, scale: float = 1.0) -> str:
    return MISSING if value is None else significant(scale * value)


def _cold_start(row: Bench) -> str:
    """Seconds from an empty process to the end of its first call."""
    cold = row.cold
    if cold is None:
        return MISSING
    return significant(cold.import_seconds + cold.build_seconds + cold.load_seconds + cold.first_call_seconds)


def _memory(name: str) -> Callable[[Bench], str]:
    def show(row: Bench) -> str:
        peak: Memory | None = row.memory.get(name)
        if peak is None:
            return MISSING
        return significant(peak.host_gib if peak.allocated_gib is None else peak.allocated_gib)

    return show


def _flops(name: str) -> Callable[[Bench], str]:
    def show(row: Bench) -> str:
        counted = row.counters.get(name)
        if counted is None:
            return MISSING
        return f"{'≥ ' if counted.uncounted else ''}{count(counted.flops)}"

    return show


def _operators(name: str) -> Callable[[Bench], str]:
    return lambda row: count(row.counters[name].operators) if name in row.counters else MISSING


def _parameters(row: Bench) -> str:
    counted = next(iter(row.counters.values()), None)
    return MISSING if counted is None else count(counted.parameters)


def _network_evaluations(row: Bench) -> str:
    counted = row.counters.get("sample")
    if counted is None or counted.network_evaluations is None:
        return MISSING
    return str(counted.network_evaluations)


_COLUMNS: dict[str, Callable[[Bench], str]] = {
    "train {rate} ↑": _rate("train_images_per_second"),
    "compute only ↑": _rate("train_compute_images_per_second"),
    "data wait %": lambda row: MISSING if row.data_wait is None else f"{100 * row.data_wait:.1f}",
    "latency p50 ms ↓": _latency("p50"),
    "p90 ms ↓": _latency("p90"),
    "sample {rate} ↑": _rate("sample_images_per_second"),
    "best batch": lambda row: MISSING if row.best_batch_size is None else str(row.best_batch_size),
    "cold start s": _cold_start,
    "first call s": lambda row: _number(None if row.cold is None else row.cold.first_call_seconds),
    "train GiB": _memory("train"),
    "sample GiB": _memory("sample"),
    "NFE": _network_evaluations,
    "ms/NFE": lambda row: _number(row.seconds_per_evaluation, 1e3),
    "train FLOPs": _flops("train"),
    "sample FLOPs": _flops("sample"),
    "train calls": _operators("train"),
    "sample calls": _operators("sample"),
    "params": _parameters,
    "peak FLOPs %": lambda row: _number(row.flops_utilisation, 100),
    "J/{example}": lambda row: _number(row.energy_joules_per_image),
    "flags": lambda row: ", ".join(row.flags) or MISSING,
}


def _kind(results: Sequence[Bench]) -> str | None:
    """Kind of the data of all subjects; None where they differ."""
    kinds = {kind_on(row.cell.dataset.label) for row in results}
    return kinds.pop() if len(kinds) == 1 else None


def _curve(results: Sequence[Bench]) -> tuple[BenchTable, ...]:
    """Examples per second over batch size."""
    swept = [row for row in results if row.curve]
    sizes = sorted({point.batch_size for row in swept for point in row.curve})
    if not sizes:
        return ()
    rows = []
    for row in swept:
        points = {point.batch_size: point for point in row.curve}
        rows.append((row.label, *(_point(points[size]) if size in points else MISSING for size in sizes)))
    return (BenchTable(f"sample {rate_unit(_kind(swept))} over batch size", ("model", *map(str, sizes)), tuple(rows)),)


def _point(point: BatchPoint) -> str:
    if point.measure is not None:
        return significant(point.measure.value)
    return MISSING if point.error is None else point.error.type


def _failure(row: Bench) -> str:
    assert row.error is not None
    hint = "" if row.error.hint is None else f"; hint: {row.error.hint}"
    return f"failed in {row.error.phase}: {row.error.type}: {row.error.message}{hint}"


def _proofs(audit: dict[str, bool]) -> str:
    broken = [name for name, holds in audit.items() if not holds]
    return f"does not hold: {', '.join(broken)}" if broken else f"all {len(audit)} proofs hold"


def _reading(results: Sequence[Bench]) -> list[str]:
    """How to read what is shown."""
    measures = [measure for row in results for measure in row.measures.values()]
    lines = []
    if any(len(measure.medians) >= _ENOUGH_ROUNDS for measure in measures):
        lines.append("± half the 95 % interval over rounds, each in a process of its own")
    if any(len(measure.medians) < _ENOUGH_ROUNDS for measure in measures):
        lines.append("n=1, n=2: rounds; too few to tell how large the noise is")
    if any(row.counters for row in results):
        lines.append(
            "FLOPs and operator calls: of one round of all players, and of one sample; "
            "≥ where an operator could not be counted"
        )
    if any(peak.allocated_gib is None for row in results for peak in row.memory.values()):
        lines.append("GiB: peak resident memory of the process")
    return lines
