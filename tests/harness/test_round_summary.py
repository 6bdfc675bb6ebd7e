"""What rounds say of a subject, from readings made by hand."""

from __future__ import annotations

import pytest
from bench_cells import cells_of

from genbench.core.bench import ColdStart, Counters, Machine, Memory, Round
from genbench.core.record import Environment, Failure
from genbench.core.spec import parse_ref
from genbench.harness.round_summary import median_reading, summary
from genbench.timing.peaks import peak_flops

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def cell(tiny_suite):
    return cells_of(tiny_suite, "vae")[0]


def _round(phase, index=0, **fields):
    return Round(label="vae", phase=phase, index=index, **fields)


def _environment(device):
    return Environment(device=device, platform="p", python="3", torch="2", packages={}, threads=1)


def _counters(evaluations=None, flops=10):
    return Counters(flops=flops, operators=1, bytes_allocated=1, parameters=1, network_evaluations=evaluations)


def test_a_value_is_the_geometric_mean_of_the_medians_of_rounds(cell):
    rounds = [_round("latency", i, values={"latency_seconds": v}) for i, v in enumerate([(1, 1, 9), (4, 4, 4)])]
    made = summary(cell, "eager", rounds).measures["latency_seconds"]
    assert made.value == pytest.approx(2.0)
    assert made.medians == (1.0, 4.0)
    assert made.unit == "s"


@pytest.mark.parametrize(("dataset", "unit"), [("digits", "img/s"), ("tones", "sounds/s"), ("toy2d", "points/s")])
def test_a_rate_counts_what_the_data_hold(cell, dataset, unit):
    rounds = [
        _round("throughput", values={"sample_images_per_second": (2.0,)}),
        _round("throughput", values={"sample_images_per_second": (1.0,)}, sweep=True, batch_size=1),
    ]
    made = summary(cell.model_copy(update={"dataset": parse_ref(dataset)}), "eager", rounds)
    assert made.measures["sample_images_per_second"].unit == unit
    assert made.curve[0].measure.unit == unit


def test_waiting_for_data_is_what_the_loader_costs(cell):
    values = {"train_images_per_second": (80.0,), "train_compute_images_per_second": (100.0,)}
    assert summary(cell, "eager", [_round("train", values=values)]).data_wait == pytest.approx(0.2)


def test_seconds_of_an_evaluation_are_latency_over_evaluations(cell):
    latency = _round("latency", values={"latency_seconds": (0.5,)})
    counted = _round("counters", counters={"sample": _counters(50)})
    assert summary(cell, "eager", [latency, counted]).seconds_per_evaluation == pytest.approx(0.01)
    one_pass = _round("counters", counters={"sample": _counters(None)})
    assert summary(cell, "eager", [latency, one_pass]).seconds_per_evaluation is None


def test_utilisation_is_known_only_where_the_peak_is(cell):
    def utilisation(device, on):
        values = {"train_images_per_second": (1000.0,)}
        rounds = [
            _round("train", values=values),
            _round("counters", flops_per_image=1e9, environment=_environment(on)),
        ]
        return summary(cell.model_copy(update={"device": device}), "eager", rounds).flops_utilisation

    peak = peak_flops(H100, "tensorfloat32")
    assert peak is not None
    assert utilisation("cuda", H100) == pytest.approx(1e12 / peak)
    assert utilisation("cuda", "GPU of tomorrow") is None
    assert utilisation("cpu", "a processor") is None


def test_energy_is_per_image_of_the_watched_part(cell):
    machine = Machine(energy_joules=50.0)
    rounds = [_round("throughput", i, machine=machine, images=images) for i, images in enumerate([10, 25, 50])]
    assert summary(cell, "eager", rounds).energy_joules_per_image == pytest.approx(2.0)


def test_points_of_a_sweep_are_a_curve_and_no_measure(cell):
    no_memory = Failure(phase="throughput", type="OutOfMemoryError", message="no memory left")
    points = [
        _round("throughput", batch_size=size, sweep=True, values={"sample_images_per_second": (rate,)})
        for size, rate in [(1, 10.0), (2, 30.0), (4, 20.0)]
    ]
    points.append(_round("throughput", batch_size=8, sweep=True, error=no_memory))
    made = summary(cell, "eager", points)
    assert [point.batch_size for point in made.curve] == [1, 2, 4, 8]
    assert [point.measure.value for point in made.curve if point.measure] == pytest.approx([10.0, 30.0, 20.0])
    assert made.curve[3].error == no_memory
    assert made.best_batch_size == 2
    assert made.error is None  # a batch that does not fit is a result
    assert not made.measures
    assert summary(cell, "eager", [_round("throughput", batch_size=1, sweep=True, error=no_memory)]).error == no_memory


def test_cold_start_is_the_median_of_the_rounds_of_latency(cell):
    def cold(seconds):
        return ColdStart(import_seconds=seconds, build_seconds=0.0, first_call_seconds=1.0, warmup_seconds=0.0)

    rounds = [_round("latency", i, cold=cold(seconds)) for i, seconds in enumerate([1.0, 5.0, 2.0])]
    made = summary(cell, "eager", [_round("train", cold=cold(100.0)), *rounds]).cold
    assert made is not None
    assert made.import_seconds == 2.0
    assert summary(cell, "eager", []).cold is None


def test_a_proof_holds_when_it_held_in_every_round(cell):
    rounds = [
        _round("latency", 0, audit={"a": True, "b": True}, samples_sha256="x", flags=("host_bound",)),
        _round("latency", 1, audit={"a": True, "b": False}, samples_sha256="y", flags=("host_bound", "throttled")),
    ]
    made = summary(cell, "eager", rounds)
    assert made.audit == {"a": True, "b": False, "same_in_every_round": False}
    assert made.flags == ("host_bound", "throttled")
    assert summary(cell, "eager", rounds[:1]).audit == {"a": True, "b": True}


def test_a_phase_that_does_not_apply_is_no_failure(cell):
    nothing = Failure(phase="train", type="NotApplicable", message="this model does not train")
    assert summary(cell, "eager", [_round("train", error=nothing)]).error is None
    broken = Failure(phase="train", type="RuntimeError", message="out of ideas")
    assert summary(cell, "eager", [_round("train", error=nothing), _round("latency", error=broken)]).error == broken


def test_peaks_and_counters_come_from_the_rounds_that_have_them(cell):
    peaks = {"train": Memory(host_gib=1.0)}
    made = summary(cell, "eager", [_round("memory", peaks=peaks), _round("counters", counters={"train": _counters()})])
    assert made.memory == peaks
    assert made.counters["train"].flops == 10


def test_the_median_of_a_round_ignores_one_interruption():
    assert median_reading(_round("latency", values={"latency_seconds": (1.0, 99.0, 1.0)}), "latency_seconds") == 1.0
    assert median_reading(_round("latency"), "latency_seconds") is None
