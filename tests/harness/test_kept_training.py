"""A cell that dies after its training goes on from there, and its record is that of a cell that nobody disturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench.core.record import Record, Timing
from genbench.executors.job import Outcome
from genbench.harness import cell as cells_module
from genbench.harness.cell import run_cell
from genbench.plan import Selection, load_suite, make_plan
from genbench.runner import _without_record
from genbench.store import RunFolder

pytestmark = pytest.mark.slow

SUITE = """\
schema: genbench.suite/1
name: tiny
version: 1
description: for tests
features: shapes_net
metrics: [frechet_distance, bits_per_dim]
models: [vae]
tiers:
  smoke:
    dataset: shapes[resolution=8]
    preset: smoke
    samples_seen: 1024
    num_samples: {num_samples}
    num_reference: 64
    num_likelihood: 16
    train_size: 256
    timing: {{warmup_steps: 1, min_block_seconds: 0.01, latency_requests: 1}}
    target: {{metric: frechet_distance, value: 1.0e+9, every: 256, num_samples: 32}}
"""
CORPSE = ("record.json", "samples.npz")
"""What a cell that died after its training has not written yet."""


def _suite(folder: Path, num_samples: int = 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(SUITE.format(num_samples=num_samples))
    return path


def _cell(folder: Path, *models: str):
    return make_plan(load_suite(str(_suite(folder))), Selection(models=models), version="1").cells[0]


def _attempt(cell, folder: Path) -> Record:
    record = run_cell(cell, folder, weights_folder=None, report=lambda phase, progress: None)
    assert record.status == "ok", record.error
    return record


def _no_training(*_, **__):
    raise AssertionError("trained again")


def _of_training(record: Record) -> dict[str, object]:
    """Everything of a record that a training leaves in it, and every number that is not a time."""
    timing = record.timing
    times = {"rate": timing.train_images_per_second, "seconds": timing.train_seconds, "phase": timing.phases["train"]}
    scores = {"scores": record.scores, "skipped": record.skipped, "flags": record.flags}
    return {**times, **scores, "quality": timing.time_to_quality, "parameters": record.num_parameters}


@pytest.mark.parametrize("model", ["vae", "vqvae", "ddpm", "ebm"])
def test_a_resumed_cell_has_the_record_of_an_undisturbed_one(model, tmp_path, monkeypatch):
    """Averages, codebooks and two stages, replay buffers: what a training leaves in a model is in its weights."""
    cell, folder = _cell(tmp_path, model), tmp_path / "cell"
    whole = _attempt(cell, folder)
    drawn = (folder / "samples.npz").read_bytes()
    for name in CORPSE:
        (folder / name).unlink(missing_ok=True)
    monkeypatch.setattr(cells_module, "train", _no_training)
    again = _attempt(cell, folder)
    assert _of_training(again) == _of_training(whole)
    assert (folder / "samples.npz").read_bytes() == drawn
    assert set(again.timing.phases) == set(whole.timing.phases)
    assert (
        again.timing.peak_memory_gib >= json.loads((folder / "training.json").read_text())["timing"]["peak_memory_gib"]
    )


def _changed(folder: Path, **changes) -> None:
    path = folder / "training.json"
    kept = json.loads(path.read_text())
    for part, values in changes.items():
        kept[part] = {**kept[part], **values} if isinstance(values, dict) else values
    path.write_text(json.dumps(kept))


LONG = {"train_seconds": 12345.0}
"""A time that no training of these tests takes: whoever finds it in a record finds a time that was kept."""


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"device": "another"}},
        {"environment": {"threads": 4096}},
        {"environment": {"torch": "0.4.0"}},
        {"environment": {"packages": {}}},
        {"weights_sha256": "0" * 64},
        {"examples_sha256": "0" * 64},
        {"schema": "genbench.training/0"},
        {"timing": "torn"},
    ],
)
def test_a_time_of_another_machine_of_other_weights_or_of_other_data_is_never_passed_off(changes, tmp_path):
    cell, folder = _cell(tmp_path, "vae"), tmp_path / "cell"
    whole = _attempt(cell, folder)
    _changed(folder, timing=LONG)
    assert _attempt(cell, folder).timing.train_seconds == LONG["train_seconds"]
    _changed(folder, **changes)
    again = _attempt(cell, folder)
    assert again.timing.train_seconds < 1000.0
    assert again.scores == whole.scores
    assert json.loads((folder / "training.json").read_text())["timing"]["train_seconds"] == again.timing.train_seconds


def test_speeds_of_a_training_on_a_busy_machine_stay_those_of_a_busy_machine(tmp_path):
    cell, folder = _cell(tmp_path, "vae"), tmp_path / "cell"
    _attempt(cell, folder)
    _changed(folder, environment={"load_average": 77.0, "commit": "0" * 12, "dirty": True})
    again = _attempt(cell, folder)
    assert again.environment.load_average == 77.0
    assert again.environment.commit != "0" * 12


def test_what_another_cell_measured_on_another_machine_stands_in_no_record_of_this_one(tmp_path):
    owner, borrower = (_cell(tmp_path, f"ddpm[num_steps={steps}]") for steps in (4, 5))
    record = _attempt(owner, tmp_path / "owner")
    (tmp_path / "owner" / "record.json").write_text(record.model_dump_json())

    def borrowed() -> Timing:
        folder = tmp_path / "borrower"
        done = run_cell(borrower, folder, weights_folder=tmp_path / "owner", report=lambda phase, progress: None)
        assert done.status == "ok", done.error
        assert not (folder / "training.json").exists()
        return done.timing

    assert borrowed().train_seconds == record.timing.train_seconds
    elsewhere = record.environment.model_copy(update={"device": "another"})
    (tmp_path / "owner" / "record.json").write_text(
        record.model_copy(update={"environment": elsewhere}).model_dump_json()
    )
    timing = borrowed()
    assert (timing.train_seconds, timing.train_images_per_second) == (None, None)
    assert timing.sample_images_per_second is not None


def test_a_model_of_the_users_own_is_trained_again_for_nobody_knows_all_of_its_code(tmp_path):
    mine = Path(__file__).parent / "tiny_models.py"
    cell = _cell(tmp_path, f"{mine}:ClassLookup")
    _attempt(cell, tmp_path / "cell")
    assert (tmp_path / "cell" / "model.safetensors").is_file()
    assert not (tmp_path / "cell" / "training.json").exists()


def test_a_run_that_is_killed_after_a_training_goes_on_without_it(tmp_path):
    """The real thing: the process of the run dies while its cell draws, and so does that of the cell."""
    suite, run = _suite(tmp_path, num_samples=512), tmp_path / "run"
    command = [sys.executable, "-m", "genbench", "run", "--suite", str(suite), "-m", "ddpm", "--out", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(run.glob("cells/*/training.json")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    (folder,) = (run / "cells").iterdir()
    assert not (folder / "record.json").exists()
    left = {name: (folder / name).read_bytes() for name in ("training.json", "model.safetensors", "raw/loss.npz")}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert {name: (folder / name).read_bytes() for name in left} == left
    (record,) = RunFolder.open(run).records()
    kept = json.loads(left["training.json"])
    assert (record.status, record.timing.train_seconds) == ("ok", kept["timing"]["train_seconds"])
    assert record.timing.phases["train"] == kept["phase_seconds"]
    begun = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines() if "cell begins" in line]
    assert [event["trained_before"] for event in begun] == [False, True]


@pytest.mark.parametrize("returncode", [None, -9])
def test_a_cell_that_died_after_its_training_says_that_the_training_is_kept(returncode, tmp_path):
    cell = _cell(tmp_path)
    outcome = Outcome(returncode=returncode, phase="score", timed_out=returncode is None)
    hints = [_without_record(cell, outcome, "2026", tail="", trained=trained).error.hint for trained in (False, True)]
    assert "kept" not in hints[0]
    assert "its training is finished and kept: the same command goes on from there" in hints[1]
