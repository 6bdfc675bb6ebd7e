"""Tables of a bench: which numbers stand where, and with how much noise."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from bench_cells import cells_of
from rich.console import Console

from genbench.core.bench import BatchPoint, Bench, BenchFile, ColdStart, Counters, Measure, Memory
from genbench.core.record import Environment, Failure
from genbench.core.spec import parse_ref
from genbench.report.bench import bench_markdown, bench_notes, bench_tables, print_bench

MISSING = "–"  # noqa: RUF001


def _measure(name, value, *, medians=(1.0,), ci95=None, quantiles=None):
    unit = "s" if name == "latency_seconds" else "img/s"
    return Measure(
        name=name,
        unit=unit,
        better="higher",
        value=value,
        medians=medians,
        ci95=ci95,
        interquartile=0.0,
        outliers=0,
        quantiles=quantiles or {},
    )


@pytest.fixture
def cells(tiny_suite):
    return cells_of(tiny_suite, "vae", "ddpm")


def _file(*rows):
    environment = Environment(device="a processor", platform="p", python="3", torch="2", packages={}, threads=2)
    return BenchFile(genbench_version="0", created="now", environment=environment, results=rows)


def _full(cell):
    rate = _measure("train_images_per_second", 1234.0, medians=(1.0, 1.0, 1.0), ci95=(1200.0, 1260.0))
    quantiles = {"p50": (0.0123, 0.0121, 0.0127), "p90": (0.0154, 0.015, None)}
    return Bench(
        cell=cell,
        measures={
            "train_images_per_second": rate,
            "sample_images_per_second": _measure("sample_images_per_second", 88.0),
            "latency_seconds": _measure("latency_seconds", 0.0123, quantiles=quantiles),
        },
        curve=(
            BatchPoint(batch_size=1, measure=_measure("sample_images_per_second", 44.0)),
            BatchPoint(batch_size=2, measure=_measure("sample_images_per_second", 88.0)),
            BatchPoint(
                batch_size=4,
                measure=None,
                error=Failure(phase="throughput", type="OutOfMemoryError", message="none left"),
            ),
        ),
        best_batch_size=2,
        cold=ColdStart(import_seconds=1.0, build_seconds=0.5, first_call_seconds=2.0, warmup_seconds=9.0),
        memory={"sample": Memory(host_gib=0.5), "train": Memory(host_gib=0.5, allocated_gib=0.25)},
        counters={
            "sample": Counters(
                flops=1_500_000,
                uncounted=("odd::one",),
                operators=60,
                bytes_allocated=1,
                parameters=1234,
                network_evaluations=50,
            )
        },
        data_wait=0.031,
        seconds_per_evaluation=0.000246,
        flops_utilisation=0.123,
        energy_joules_per_image=2.0,
        flags=("host_bound",),
        audit={"seeds_differ": True, "same_seed_same_sample": False},
    )


def _cells_by_header(file):
    table = bench_tables(file)[0]
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_every_number_stands_under_its_header_with_its_noise(cells):
    row = _cells_by_header(_file(_full(cells[0])))[0]
    assert row == {
        "model": "vae",
        "train img/s ↑": "1,230 ± 30",
        "data wait %": "3.1",
        "latency p50 ms ↓": "12.3 [12.1, 12.7]",
        "p90 ms ↓": "15.4",
        "sample img/s ↑": "88.0 (n=1)",
        "best batch": "2",
        "cold start s": "3.50",  # import, build and first call; warm-up is not what a first sample waits for
        "first call s": "2.00",
        "train GiB": "0.250",
        "sample GiB": "0.500",
        "NFE": "50",
        "ms/NFE": "0.246",
        "sample FLOPs": "≥ 1.5M",
        "sample calls": "60",
        "params": "1.23k",
        "peak FLOPs %": "12.3",
        "J/img": "2.00",
        "flags": "host_bound",
    }


def _on(cell, dataset):
    return cell.model_copy(update={"dataset": parse_ref(dataset)})


def test_speeds_are_counted_in_what_the_data_hold_and_plainly_where_tables_mix(cells):
    sounds = bench_tables(_file(_full(_on(cells[0], "tones"))))
    assert {"train sounds/s ↑", "sample sounds/s ↑", "J/sound"} <= set(sounds[0].header)
    assert sounds[1].title == "sample sounds/s over batch size"
    mixed = bench_tables(_file(_full(_on(cells[0], "toy2d")), _full(cells[1])))
    assert {"train examples/s ↑", "sample examples/s ↑", "J/example"} <= set(mixed[0].header)
    assert not any("img" in name for name in mixed[0].header)


def test_a_column_that_nobody_fills_is_left_out_and_a_gap_is_a_dash(cells):
    other = Bench(cell=cells[1], measures={"sample_images_per_second": _measure("sample_images_per_second", 3.0)})
    rows = _cells_by_header(_file(_full(cells[0]), other))
    assert "compute only ↑" not in rows[0]
    assert rows[1]["train img/s ↑"] == MISSING
    assert rows[1]["sample img/s ↑"] == "3.00 (n=1)"


def test_running_out_of_memory_is_a_point_of_the_curve(cells):
    curve = bench_tables(_file(_full(cells[0])))[1]
    assert curve.header == ("model", "1", "2", "4")
    assert curve.rows == (("vae", "44.0", "88.0", "OutOfMemoryError"),)


def test_failures_broken_proofs_and_flags_are_explained(cells):
    failure = Failure(phase="build", type="ModelError", message="no such layer", hint="spell it right")
    notes = bench_notes(_file(_full(cells[0]), Bench(cell=cells[1], variant="compile", error=failure)))
    assert notes[0] == "ddpm (compile): failed in build: ModelError: no such layer; hint: spell it right"
    assert "vae: audit: does not hold: same_seed_same_sample" in notes
    assert any(note.startswith("host_bound: ") for note in notes)
    assert any(note.startswith("n=1") for note in notes)


def test_a_bench_without_numbers_has_no_table(cells):
    failure = Failure(phase="build", type="ModelError", message="no such layer")
    file = _file(Bench(cell=cells[0], error=failure))
    assert bench_tables(file) == ()
    assert "no such layer" in bench_markdown(file)


def test_markdown_is_a_table_of_even_rows_that_cannot_break_out(cells):
    evil = cells[0].model_copy(update={"subject": cells[0].subject.model_copy(update={"name": "a|b<c>"})})
    text = bench_markdown(_file(_full(evil)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = [line for line in lines if "train img/s" in line or "vae" in line or "a" in line]
    assert first
    assert "a\\|b&lt;c&gt;" in text
    widths = {line.replace("\\|", "").count("|") for line in lines[:3]}
    assert len(widths) == 1


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_table_is_split_where_it_is_too_wide_and_loses_nothing(width, cells):
    file = _file(_full(cells[0]))
    stream = io.StringIO()
    print_bench(file, Console(file=stream, width=width, highlight=False))
    text = stream.getvalue()
    tables = text.partition("vae: audit")[0]
    assert max(len(line) for line in tables.splitlines()) <= width
    for table in bench_tables(file):
        assert all(cell in tables for cell in (*table.header, *table.rows[0]))


def test_a_bench_is_rendered_without_torch():
    code = "import sys, genbench.report.bench; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
