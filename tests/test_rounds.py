"""Rounds in processes of their own: order, sweeps, deaths, other checkouts. Each round is a real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from bench_cells import SAMPLER, SHORT, cells_of, job_of, model_file

from genbench.core.bench import BenchFile
from genbench.core.dataset import build_dataset
from genbench.core.registry import PACKAGE_ROOT
from genbench.harness.building import build
from genbench.rounds import BENCH_FILE, HERE, Installation, Progress, bench, run_round

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SLEEPER = """\
import time, torch
def sample(n, seed, device):
    if n > 4:
        raise torch.OutOfMemoryError('no memory left')
    time.sleep(0.02)
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
"""
DEATHS = {
    "exits": ("import os; os._exit(5)", "Exited", "exited with code 5"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "Killed", "SIGKILL"),
    "crashes": ("import os; os.kill(os.getpid(), 6)", "Killed", "SIGABRT"),
}


def _cell(tmp_path, tiny_suite, name="sampler", text=SAMPLER):
    return cells_of(tiny_suite, model_file(tmp_path, name, text))[0]


def test_a_round_comes_back_from_its_process(tmp_path, tiny_suite):
    done = run_round(job_of(cells_of(tiny_suite, "vae")[0], "train", index=3), folder=tmp_path / "round")
    assert done.error is None
    assert (done.label, done.phase, done.index, done.batch_size) == ("vae", "train", 3, 32)
    assert len(done.values["train_images_per_second"]) >= SHORT.min_blocks
    assert done.environment is not None
    assert done.cold is not None
    assert 0 < done.cold.import_seconds < done.seconds


@pytest.mark.parametrize("name", DEATHS)
def test_a_process_that_dies_says_how(name, tmp_path, tiny_suite):
    line, kind, words = DEATHS[name]
    text = f"def sample(n, seed, device):\n    {line}\n"
    done = run_round(job_of(_cell(tmp_path, tiny_suite, name, text), "latency"), folder=tmp_path / "round")
    assert done.error is not None
    assert (done.error.phase, done.error.type) == ("round", kind)
    assert words in done.error.message
    assert done.label == f"{name}.py"


def test_a_round_that_hangs_ends_at_its_deadline_with_its_stack_in_the_log(tmp_path, tiny_suite):
    cell = _cell(tmp_path, tiny_suite, "hangs", "def sample(n, seed, device):\n    import time; time.sleep(600)\n")
    began = time.monotonic()
    done = run_round(job_of(cell, "latency"), folder=tmp_path / "round", deadline_seconds=20.0)
    assert time.monotonic() - began < 60
    assert done.error is not None
    assert done.error.type == "Timeout"
    assert "most recent call first" in (tmp_path / "round" / "stderr.log").read_text()


def test_an_old_round_is_never_taken_for_the_new_one(tmp_path, tiny_suite):
    folder = tmp_path / "round"
    assert run_round(job_of(_cell(tmp_path, tiny_suite), "latency"), folder=folder).error is None
    dies = _cell(tmp_path, tiny_suite, "dies", "import os; os._exit(5)")
    assert run_round(job_of(dies, "latency"), folder=folder).error is not None


def _checkout(folder: Path) -> Path:
    shutil.copytree(PACKAGE_ROOT, folder / "genbench", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_another_checkout_runs_its_own_code_wherever_the_command_is_given(tmp_path, tiny_suite):
    checkout = _checkout(tmp_path / "base")
    _edit(checkout / "genbench" / "harness" / "environment.py", "device=torch", 'device="the base" if True else torch')
    job = job_of(_cell(tmp_path, tiny_suite), "latency")
    done = run_round(job, folder=tmp_path / "round", installation=Installation(path=checkout))
    assert done.error is None
    assert done.environment is not None
    assert done.environment.device == "the base"
    here = run_round(job, folder=tmp_path / "round", installation=HERE)
    assert here.environment is not None
    assert here.environment.device != "the base"


def _environment(folder: Path) -> Path:
    """A second virtual environment with the packages of this one; its Python."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder / "pyvenv.cfg")
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib", target_is_directory=True)
    return folder / "bin" / "python"


@pytest.mark.skipif(not (Path(sys.prefix) / "pyvenv.cfg").is_file(), reason="runs in a virtual environment only")
def test_another_environment_runs_its_own_genbench_wherever_the_command_is_given(tmp_path, tiny_suite, monkeypatch):
    head = tmp_path / "head"
    (head / "genbench").mkdir(parents=True)
    (head / "genbench" / "__init__.py").write_text('raise RuntimeError("this is the other side")')
    job = job_of(_cell(tmp_path, tiny_suite), "latency")
    installation = Installation(python=str(_environment(tmp_path / "base")))
    monkeypatch.setenv("PYTHONPATH", str(head))
    monkeypatch.chdir(head)
    done = run_round(job, folder=tmp_path / "round", installation=installation)
    assert done.error is None or "this is the other side" not in done.error.message
    assert done.error is None, done.error


def test_a_checkout_without_timed_rounds_is_too_old(tmp_path, tiny_suite):
    checkout = _checkout(tmp_path / "base")
    (checkout / "genbench" / "harness" / "round_worker.py").unlink()
    job = job_of(_cell(tmp_path, tiny_suite), "latency")
    done = run_round(job, folder=tmp_path / "round", installation=Installation(path=checkout))
    assert done.error is not None
    assert (done.error.phase, done.error.type) == ("start", "TooOld")
    assert str(checkout) in done.error.message


def test_a_checkout_with_another_kind_of_jobs_refuses_in_words(tmp_path, tiny_suite):
    checkout = _checkout(tmp_path / "base")
    _edit(checkout / "genbench" / "harness" / "round_job.py", '"genbench.round-job/1"', '"genbench.round-job/0"')
    job = job_of(_cell(tmp_path, tiny_suite), "latency")
    done = run_round(job, folder=tmp_path / "round", installation=Installation(path=checkout))
    assert done.error is not None
    assert "its schema is `genbench.round-job/1`" in done.error.message
    assert "reads `genbench.round-job/0`" in done.error.message


def test_a_round_that_this_version_cannot_read_is_an_error_in_words(tmp_path, tiny_suite):
    checkout = _checkout(tmp_path / "base")
    worker = checkout / "genbench" / "harness" / "round_worker.py"
    _edit(worker, "done.model_dump_json(indent=1).encode()", 'b\'{"colour": "red"}\'')
    job = job_of(_cell(tmp_path, tiny_suite), "latency")
    done = run_round(job, folder=tmp_path / "round", installation=Installation(path=checkout))
    assert done.error is not None
    assert done.error.type == "Unreadable"


def test_round_i_of_all_comes_before_round_i_plus_1_of_any_in_an_order_that_the_seed_fixes(tmp_path, tiny_suite):
    cells = [_cell(tmp_path, tiny_suite, name) for name in ("first", "second")]

    def order(folder: str) -> list[tuple[str, int]]:
        told: list[Progress] = []
        made = bench(cells, effort=SHORT, folder=tmp_path / folder, phases=["latency"], tell=told.append, seed=1)
        assert [done.label for done in made.rounds] == [one.job.cell.label for one in told if one.round is not None]
        assert all(one.planned == 4 for one in told)
        return [(done.label, done.index) for done in made.rounds]

    played = order("a")
    assert [index for _, index in played] == [0, 0, 1, 1]
    assert {label for label, _ in played[:2]} == {label for label, _ in played[2:]} == {"first.py", "second.py"}
    assert order("b") == played


def test_a_sweep_ends_where_memory_does_and_its_best_is_measured_in_full(tmp_path, tiny_suite):
    cell = _cell(tmp_path, tiny_suite, "sleeper", SLEEPER)
    made = bench([cell], effort=SHORT, folder=tmp_path / "bench", phases=["throughput"])
    row = made.results[0]
    assert [point.batch_size for point in row.curve] == [1, 2, 4, 8]
    assert row.curve[3].error is not None
    assert row.curve[3].error.type == "OutOfMemoryError"
    assert row.error is None
    assert row.best_batch_size == 4
    full = [done for done in made.rounds if not done.sweep]
    assert [(done.batch_size, done.index) for done in full] == [(4, 0), (4, 1)]
    assert len(row.measures["sample_images_per_second"].medians) == 2
    assert row.measures["sample_images_per_second"].value <= 4 / 0.02
    assert BenchFile.model_validate_json((tmp_path / "bench" / BENCH_FILE).read_bytes()) == made


def test_a_subject_that_fails_stays_with_its_reason_and_stops_no_other(tmp_path, tiny_suite):
    broken = _cell(tmp_path, tiny_suite, "broken", "raise ValueError('not today')")
    works = _cell(tmp_path, tiny_suite, "works")
    made = bench([broken, works], effort=SHORT, folder=tmp_path / "bench", phases=["latency", "counters"])
    assert [row.cell.label for row in made.results] == ["broken.py", "works.py"]
    assert made.results[0].error is not None
    assert "not today" in made.results[0].error.message
    assert len([done for done in made.rounds if done.label == "broken.py"]) == 1  # it would only fail again
    assert made.results[1].error is None
    assert set(made.results[1].measures) == {"latency_seconds"}
    assert set(made.results[1].counters) == {"sample"}


def test_a_variant_that_cannot_run_here_fails_beside_one_that_can(tmp_path, tiny_suite):
    cell = cells_of(tiny_suite, "vae")[0]
    made = bench([cell], effort=SHORT, folder=tmp_path, phases=["latency", "counters"], variants=["eager", "cudagraph"])
    eager, captured = made.results
    assert eager.error is None
    assert captured.error is not None
    assert captured.label == "vae (cudagraph)"
    assert captured.counters == eager.counters


def test_what_was_measured_before_an_interruption_is_kept(tmp_path, tiny_suite):
    slow = "import time\n" + SAMPLER.replace("    return", "    time.sleep(1.0)\n    return")
    model_file(tmp_path, "slow", slow)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from bench_cells import SHORT, cells_of; from genbench.rounds import bench\n"
        "cells = cells_of(Path(sys.argv[2]), sys.argv[3])\n"
        "effort = SHORT.model_copy(update={'rounds': 500})\n"
        "bench(cells, effort=effort, folder=Path(sys.argv[4]), phases=['latency'])\n"
    )
    words = [str(Path(__file__).parent), str(tiny_suite), str(tmp_path / "slow.py"), str(tmp_path / "bench")]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, start_new_session=True)
    kept = tmp_path / "bench" / BENCH_FILE
    try:
        until = time.monotonic() + 120
        while not kept.exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    finally:
        process.kill()
    made = BenchFile.model_validate_json(kept.read_bytes())
    assert 1 <= len(made.rounds) < 500
    assert "latency_seconds" in made.results[0].measures


def test_rounds_of_an_earlier_bench_do_not_stand_among_those_of_a_new_one(tmp_path, tiny_suite):
    cell = _cell(tmp_path, tiny_suite)
    bench([cell], effort=SHORT, folder=tmp_path / "bench", phases=["latency"])
    single = SHORT.model_copy(update={"rounds": 1})
    bench([cell], effort=single, folder=tmp_path / "bench", phases=["latency"])
    files = sorted((tmp_path / "bench" / "rounds").glob("*/round.json"))
    assert len(files) == 1
    assert json.loads(files[0].read_text())["index"] == 0


def test_trained_weights_reach_the_rounds_of_their_cell_alone(tmp_path, tiny_suite):
    vae, other = cells_of(tiny_suite, "vae", "vae[latent_dim=3]")
    torch.manual_seed(0)
    model = build(vae, build_dataset(vae.dataset))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors.torch.save(model.state_dict()))
    single = SHORT.model_copy(update={"rounds": 1})
    hashes = {
        weights is None: {
            done.label: done.samples_sha256
            for done in bench(
                [vae, other], effort=single, folder=tmp_path / "b", phases=["latency"], audit=True, weights=weights
            ).rounds
        }
        for weights in (None, {vae.key: file})
    }
    assert hashes[True]["vae"] != hashes[False]["vae"]
    assert hashes[True][other.label] == hashes[False][other.label]
