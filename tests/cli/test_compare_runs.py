"""Comparison of two runs, bench files or baselines."""

import pytest
from gate_files import CPU, baseline, cell, counted, run_folder, score

from genbench.cli.compare_runs import is_measured, read_measured, run_comparison
from genbench.cli.main import main
from genbench.core.bench import Bench, BenchFile, Counters, Machine, Round
from genbench.core.errors import StoreError
from genbench.prob.rounds import summarise


def _bench(path, *medians, flops=1000, canary=1.0, threads=2):
    measure = summarise([[m] for m in medians], name="latency_seconds", unit="s", better="lower")
    counted = Counters(flops=flops, operators=10, bytes_allocated=4, parameters=2)
    row = Bench(cell=cell(), measures={"latency_seconds": measure}, counters={"sample": counted})
    machine = Machine(canary_before_seconds=canary, canary_after_seconds=canary)
    rounds = tuple(Round(label="ddpm", phase="latency", index=i, machine=machine) for i in range(len(medians)))
    environment = CPU.model_copy(update={"threads": threads})
    file = BenchFile(genbench_version="0.1.0", created="2026", environment=environment, results=(row,), rounds=rounds)
    path.write_text(file.model_dump_json())
    return path


def test_two_runs_are_compared_by_their_scores(tmp_path, capsys):
    first = run_folder(tmp_path / "first", {"ddpm": score(60.0)})
    assert run_comparison(first, run_folder(tmp_path / "same", {"ddpm": score(60.0)})) == 0
    assert run_comparison(first, run_folder(tmp_path / "worse", {"ddpm": score(70.0)})) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path / 'worse'} against {first}".split("/")[-1] in said
    assert "regression found (exit code 1)" in said


def test_two_bench_files_are_compared_by_their_clocks_and_their_counts(tmp_path, capsys):
    first = _bench(tmp_path / "a.json", 1.0, 1.002, 0.998, 1.001)
    assert run_comparison(first, _bench(tmp_path / "b.json", 1.0, 1.001, 0.999, 1.001)) == 0
    assert run_comparison(first, _bench(tmp_path / "c.json", 1.1, 1.102, 1.098, 1.1)) == 1
    assert "latency_seconds" in capsys.readouterr().out
    assert run_comparison(first, _bench(tmp_path / "d.json", 1.0, 1.002, 0.998, flops=1001)) == 1
    assert "sample.flops" in capsys.readouterr().out


def test_a_slower_machine_is_no_slower_code(tmp_path):
    first = _bench(tmp_path / "a.json", 1.0, 1.002, 0.998)
    drifted = _bench(tmp_path / "b.json", 1.1, 1.102, 1.098, canary=1.1)
    assert run_comparison(first, drifted) == 0
    assert run_comparison(first, drifted, strict=True) == 4
    other = _bench(tmp_path / "c.json", 1.0, 1.002, 0.998, threads=8)
    assert run_comparison(first, other) == 5
    assert run_comparison(first, other, allow_versions=True) == 0


def test_a_baseline_is_compared_with_a_bench_by_what_both_hold(tmp_path, capsys):
    file = baseline(tmp_path / "baseline.json", counted())
    bench = _bench(tmp_path / "bench.json", 1.0, 1.0)
    assert run_comparison(file, bench) == 1  # the baseline has counted training, the bench has not
    said = capsys.readouterr().out
    assert "train: counted in base, not in head" in said
    assert f"speed: only in {bench}, so not compared" in said.replace("\n", "")


def test_what_has_nothing_in_common_exits_with_6(tmp_path, capsys):
    run = run_folder(tmp_path / "run", {"ddpm": score(60.0)})
    assert run_comparison(run, _bench(tmp_path / "bench.json", 1.0, 1.0)) == 6
    assert "nothing compared (exit code 6)" in capsys.readouterr().out


def test_a_folder_of_a_bench_stands_for_its_file(tmp_path):
    _bench(tmp_path / "bench.json", 1.0, 1.0)
    assert {entry.gate for entry in read_measured(tmp_path).entries} == {"speed", "counters"}


def test_what_was_measured_is_told_from_samples(tmp_path):
    pictures = tmp_path / "pngs"
    pictures.mkdir()
    (tmp_path / "captions.json").write_text('["a small red circle"]')
    assert is_measured(run_folder(tmp_path / "run", {"ddpm": score(60.0)}))
    assert is_measured(_bench(tmp_path / "a.json", 1.0, 1.0))
    assert is_measured(baseline(tmp_path / "baseline.json", counted()))
    for path in (pictures, tmp_path / "captions.json", tmp_path / "nothing", tmp_path / "samples.npz"):
        assert not is_measured(path)


@pytest.mark.parametrize("text", ['{"schema": "genbench.bench/1"}', "{}", "no json"])
def test_a_file_that_cannot_be_read_is_refused(text, tmp_path):
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(StoreError):
        read_measured(tmp_path / "bench.json")
    with pytest.raises(StoreError, match="nothing that was measured"):
        read_measured(tmp_path / "nowhere")


def test_the_command_compares_two_runs_without_a_reference(tmp_path, capsys):
    first = run_folder(tmp_path / "first", {"ddpm": score(60.0)})
    second = run_folder(tmp_path / "second", {"ddpm": score(70.0)})
    assert main(["compare", str(first), str(second)]) == 1
    assert "ddpm" in capsys.readouterr().out


def test_samples_without_a_reference_are_refused(tmp_path, capsys):
    first = run_folder(tmp_path / "first", {"ddpm": score(60.0)})
    assert main(["compare", str(first), str(tmp_path)]) == 2
    assert "--reference" in capsys.readouterr().err
