"""`genbench bench`: what it takes, prints, writes and exits with."""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys

import pytest
import torch
from bench_cells import SAMPLER, model_file

from genbench.cli import bench as command
from genbench.cli.main import main
from genbench.core.bench import EFFORTS, BenchFile
from genbench.core.errors import SettingError, UnknownName
from genbench.rounds import bench
from genbench.timing.variants import check_variant


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def _run(*words: object) -> int:
    return command.run(_options(*map(str, words)))


def test_models_are_named_one_after_the_other_or_one_by_one():
    assert _options("-m", "vae", "ddpm", "-m", "ebm").model == ["vae", "ddpm", "ebm"]


@pytest.mark.parametrize("words", [["--phase", "sleep"], ["--rounds", "0"], ["--max-batch", "many"], ["--effort", "x"]])
def test_a_wrong_option_is_refused(words, capsys):
    with pytest.raises(SystemExit) as refused:
        _options(*words)
    assert refused.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_wrong_name_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UnknownName, match="ddpn"):
        _run("-m", "ddpn", "--out", tmp_path / "bench")
    assert not (tmp_path / "bench").exists()


def test_options_need_neither_torch_nor_rich():
    code = (
        "import argparse, sys; from genbench.cli.bench import add_arguments\n"
        "add_arguments(argparse.ArgumentParser())\n"
        "assert not {'torch', 'scipy', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_networks_run_eagerly_unless_another_variant_is_named():
    assert _options("-m", "vae").variant is None  # which `run` takes for the eager one alone
    assert list(inspect.signature(bench).parameters["variants"].default) == ["eager"]


def test_efforts_on_offer_are_those_that_there_are():
    assert tuple(EFFORTS) == command._EFFORTS


@pytest.mark.slow
def test_a_bench_prints_a_table_and_writes_everything(tmp_path, tiny_suite, capsys):
    file = tmp_path / "bench.json"
    words = [
        "--suite",
        tiny_suite,
        "-m",
        "vae",
        "--phase",
        "train",
        "counters",
        "--json",
        file,
        "--out",
        tmp_path / "b",
    ]
    assert _run(*words) == 0
    out, err = capsys.readouterr()
    assert "train img/s" in out
    assert "vae" in out
    assert "[2/2] vae train round 1" in err
    made = BenchFile.model_validate_json(file.read_bytes())
    assert set(made.results[0].measures) == {"train_images_per_second", "train_compute_images_per_second"}
    assert len(made.rounds) == 1 + EFFORTS["smoke"].rounds


@pytest.mark.slow
def test_json_on_standard_output_stands_there_alone(tmp_path, tiny_suite, capsys):
    model = model_file(tmp_path, "sampler", SAMPLER)
    words = ["--suite", tiny_suite, "-m", model, "--phase", "latency", "--rounds", 3, "--json", "-"]
    assert _run(*words, "--out", tmp_path / "bench") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "genbench.bench/1"
    assert document["results"][0]["measures"]["latency_seconds"]["ci95"] is not None


@pytest.mark.slow
def test_a_failed_subject_exits_3_and_the_others_are_shown(tmp_path, tiny_suite, capsys):
    works, broken = model_file(tmp_path, "works", SAMPLER), model_file(tmp_path, "broken", "raise ValueError('no')")
    words = ["--suite", tiny_suite, "-m", works, broken, "--phase", "latency", "--rounds", 1]
    assert _run(*words, "--out", tmp_path / "bench") == 3
    out = capsys.readouterr().out
    assert "works.py" in out
    assert "broken.py: failed in build" in out


@pytest.mark.slow
def test_nothing_measured_exits_6(tmp_path, tiny_suite):
    model = model_file(tmp_path, "sampler", SAMPLER)  # it cannot train
    assert _run("--suite", tiny_suite, "-m", model, "--phase", "train", "--out", tmp_path / "bench") == 6


def _latency_of(tiny_suite, folder, *words):
    """The row of one round of latency."""
    assert _run("--suite", tiny_suite, "-m", "vae", "--phase", "latency", "--rounds", 1, "--out", folder, *words) == 0
    return BenchFile.model_validate_json((folder / "bench.json").read_bytes()).results[0]


@pytest.mark.slow
def test_a_network_is_compiled_when_that_was_asked_for_and_never_else(tmp_path, tiny_suite, monkeypatch):
    try:
        check_variant("compile", torch.device("cpu"))
    except SettingError as missing:
        pytest.skip(str(missing))
    kept = tmp_path / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kept))
    plain = _latency_of(tiny_suite, tmp_path / "plain")
    assert (plain.label, list(kept.rglob("*.so"))) == ("vae", [])
    compiled = _latency_of(tiny_suite, tmp_path / "bench", "--variant", "compile")
    assert compiled.label == "vae (compile)"
    assert list(kept.rglob("*.so"))  # what the C++ compiler made
    assert compiled.cold.first_call_seconds > plain.cold.first_call_seconds
    assert compiled.measures["latency_seconds"].value > 0


@pytest.mark.slow
def test_weights_of_a_run_are_benched(tmp_path, tiny_suite):
    run = tmp_path / "run"
    assert main(["run", "--suite", str(tiny_suite), "-m", "vae", "--out", str(run)]) == 0
    (file,) = run.glob("cells/*/model.safetensors")
    _latency_of(tiny_suite, tmp_path / "bench", "--weights", run)
    (job,) = (tmp_path / "bench").glob("rounds/*/job.json")
    assert json.loads(job.read_text())["job"]["weights"] == str(file.resolve())
