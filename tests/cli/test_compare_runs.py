"""Comparison of two runs, bench files or baselines."""

import pytest
from gate_files import CPU, baseline, call, cell, counted, run_folder, score

from genbench.cli import compare
from genbench.cli.compare_runs import is_measured, read_measured, run_comparison
from genbench.cli.main import main
from genbench.core.bench import Bench, BenchFile, Counters, Machine, Round
from genbench.core.errors import SettingError, StoreError, UnknownName
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


def test_runs_without_a_model_in_common_are_not_comparable(tmp_path, capsys):
    first = run_folder(tmp_path / "first", {"ddpm": score(60.0)})
    second = run_folder(tmp_path / "second", {"vae": score(70.0)}, failed=["ebm"])
    assert run_comparison(first, second) == 5
    said = " ".join(capsys.readouterr().out.split())
    assert "not comparable (exit code 5): 3 not comparable" in said
    assert "no model is in both: `ddpm` on shapes[resolution=8] in base, `vae` on shapes[resolution=8]" in said
    assert "--models FIRST SECOND" in said


def test_a_control_in_common_does_not_make_two_runs_comparable(tmp_path):
    scores = [{"ddpm": score(60.0), "real": score(1.0)}, {"vae": score(60.0), "real": score(1.0)}]
    sides = [run_folder(tmp_path / str(index), one, controls=["real"]) for index, one in enumerate(scores)]
    assert run_comparison(*sides) == 5


def test_runs_of_two_suites_are_not_comparable_and_a_row_missing_from_one_suite_has_vanished(tmp_path, capsys):
    first = run_folder(tmp_path / "first", {"ddpm": score(60.0), "vae": score(60.0)})
    other = run_folder(tmp_path / "other", {"ddpm": score(60.0)}, suite="digits")
    assert run_comparison(first, other) == 5
    assert "base is of suite `images_smoke`, tier `smoke`, head of suite `digits`" in capsys.readouterr().out
    assert run_comparison(first, run_folder(tmp_path / "less", {"ddpm": score(60.0)})) == 1
    assert "vanished" in capsys.readouterr().out


def test_two_rows_of_one_run_are_set_against_each_other(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # for a row of the table in one line
    labels = ("fsq[levels=8x6x5,width=4]", "fsq[levels=8x8]")
    run = run_folder(tmp_path / "run", {labels[0]: score(60.0), labels[1]: score(70.0)})
    assert (
        main(["compare", str(run), "--models", "fsq[width=4,levels=8x6x5]", labels[1]]) == 1
    )  # in any order of settings
    said = " ".join(capsys.readouterr().out.split())
    assert "regression found (exit code 1): 1 regressed" in said
    assert "60.0 70.0 +10.0" in said
    assert run_comparison(run, run, models=(labels[1], labels[0])) == 0
    assert "1 improved" in capsys.readouterr().out


def test_rows_are_named_by_what_tells_them_apart(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # for a row of the table in one line
    labels = ("fsq[levels=8x6x5,width=4]", "fsq[levels=8x8,width=4]", "maskgit[num_halvings=1]")
    run = run_folder(tmp_path / "run", dict(zip(labels, map(score, (60.0, 70.0, 60.0)), strict=True)))
    assert run_comparison(run, run, models=("maskgit", "fsq[levels=8x8]")) == 1
    assert "60.0 70.0 +10.0" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SettingError, match="`fsq` may be any of 2 rows of the second") as error:
        run_comparison(run, run, models=("maskgit", "fsq"))
    assert error.value.hint == f"say more of one: `{labels[0]}`, `{labels[1]}`"
    with pytest.raises(UnknownName, match="the first has no row"):
        run_comparison(run, run, models=("fsq[levels=8x8,width=5]", "maskgit"))


def test_what_one_of_two_opposed_rows_has_alone_is_told_and_is_no_regression(tmp_path, capsys):
    first = run_folder(tmp_path / "first", {"vqvae": score(60.0)})
    second = run_folder(tmp_path / "second", {"vae": score(60.0, name="psnr")}, samples_seen=50)
    assert run_comparison(first, second, models=("vqvae", "vae")) == 6
    said = " ".join(capsys.readouterr().out.split())
    assert "fd_shapes_net: only of the first" in said
    assert "psnr: only of the second" in said
    assert "other budgets: `vqvae` saw 4,096 training examples, `vae` 50" in said


def test_rows_that_are_not_there_and_one_row_against_itself_are_refused(tmp_path):
    run = run_folder(tmp_path / "run", {"vae": score(60.0), "ddpm": score(60.0)})
    with pytest.raises(UnknownName, match="the second has no row `fsq`") as error:
        run_comparison(run, run, models=("vae", "fsq"))
    assert error.value.hint == "it has `vae`, `ddpm`"
    with pytest.raises(SettingError, match="are one row"):
        run_comparison(run, run, models=("vae", "vae"))
    with pytest.raises(SettingError, match="nothing to compare it with"):
        call(compare, [run])
    with pytest.raises(SettingError, match="names rows of runs"):
        call(compare, [run, run, "--models", "vae", "ddpm", "--reference", "digits"])


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
