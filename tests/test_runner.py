"""Whole runs: resume, failures in isolation, kills, determinism. Each cell is a real process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench.cli.main import main
from genbench.core.record import Record
from genbench.store import RunFolder

pytestmark = pytest.mark.slow

GOOD = """\
import torch
def sample(n, seed, device):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 8, generator=g)
"""
BAD = {
    "raises": ("raise RuntimeError('out of ideas')", "sample", "RuntimeError", "out of ideas"),
    "exits": ("import os; os._exit(5)", "sample", "Exited", "exited with code 5"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "sample", "Killed", "SIGKILL"),
    "memory": ("raise torch.OutOfMemoryError('no memory left')", "sample", "OutOfMemoryError", "no memory left"),
    "hangs": ("import time; time.sleep(600)", "sample", "Timeout", "no end after"),
    "nan": ("return torch.full((n, 3, 8, 8), float('nan'))", "sample", "SampleError", "not finite"),
    "shape": ("return torch.rand(n, 3, 9, 9)", "sample", "SampleError", "drew shape"),
}


def _run(suite: Path, out: Path, *words: str) -> int:
    return main(["run", "--suite", str(suite), "--out", str(out), *words])


def _numbers(record: Record) -> dict[str, object]:
    """Everything of a record that must be the same in every run."""
    return {
        "key": record.key,
        "status": record.status,
        "scores": record.scores,
        "skipped": record.skipped,
        "parameters": record.num_parameters,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    """One uninterrupted run of the tiny suite: (suite, run folder)."""
    from conftest import TINY_SUITE

    root = tmp_path_factory.mktemp("run")
    suite = root / "tiny.yaml"
    suite.write_text(TINY_SUITE)
    assert _run(suite, root / "first") == 0
    return suite, root / "first"


def test_a_finished_run_has_everything_that_it_promises(finished):
    folder = RunFolder.open(finished[1])
    for record in folder.records():
        cell = folder.cell_folder(record.key)
        assert record.status == "ok"
        assert {path.name for path in cell.iterdir()} >= {
            "record.json",
            "samples.npz",
            "grid.png",
            "stdout.log",
            "stderr.log",
        }
        assert (cell / "model.safetensors").is_file() == (record.cell.role == "model")
    events = (folder.path / "events.jsonl").read_text()
    assert events.count("cell ends") == 3


def test_a_finished_cell_is_never_run_again(finished, capsys):
    suite, out = finished
    before = {record.key: record for record in RunFolder.open(out).records()}
    assert _run(suite, out) == 0
    assert {record.key: record for record in RunFolder.open(out).records()} == before
    assert "3 of them finished before" in capsys.readouterr().err


def test_the_same_command_in_another_folder_gives_the_same_numbers(finished, tmp_path):
    suite, out = finished
    assert _run(suite, tmp_path / "second") == 0
    first = [_numbers(record) for record in RunFolder.open(out).records()]
    assert [_numbers(record) for record in RunFolder.open(tmp_path / "second").records()] == first


def test_every_kind_of_failure_is_recorded_and_the_rest_goes_on(finished, tmp_path, capsys):
    suite = tmp_path / "short.yaml"
    suite.write_text(finished[0].read_text().replace("deadline_seconds: 60.0", "deadline_seconds: 25.0"))
    words = []
    for name, (line, *_) in BAD.items():
        (tmp_path / f"{name}.py").write_text(f"import torch\ndef sample(n, seed, device):\n    {line}\n")
        words += ["-m", str(tmp_path / f"{name}.py")]
    (tmp_path / "good.py").write_text(GOOD)
    assert _run(suite, tmp_path / "run", *words, "-m", str(tmp_path / "good.py")) == 3
    records = {Path(r.cell.subject.name).stem: r for r in RunFolder.open(tmp_path / "run").records()}
    for name, (_, phase, kind, message) in BAD.items():
        error = records[name].error
        assert (error.phase, error.type) == (phase, kind), error
        assert message in error.message
        assert (tmp_path / "run" / error.log).is_file()
    assert {name for name, record in records.items() if record.status == "ok"} == {"good", "real", "noise"}
    said = capsys.readouterr()
    assert "out of ideas" in said.out
    assert (
        "time.sleep(600)" in (tmp_path / "run" / records["hangs"].error.log).read_text()
        or "sample" in (tmp_path / "run" / records["hangs"].error.log).read_text()
    )


def test_a_failed_cell_is_tried_again_and_may_be_mended(tmp_path, finished):
    flag, mine = tmp_path / "flag", tmp_path / "mine.py"
    mine.write_text(GOOD.replace("    g =", f"    assert __import__('os').path.exists({str(flag)!r})\n    g ="))
    words = ("-m", str(mine), "--out", str(tmp_path / "run"))
    assert main(["run", "--suite", str(finished[0]), *words]) == 3
    flag.write_text("")
    assert main(["run", "--suite", str(finished[0]), *words]) == 0


def test_a_model_file_joins_the_table_of_a_finished_run(finished, tmp_path, capsys):
    suite, out = finished
    (tmp_path / "mine.py").write_text(GOOD)
    assert _run(suite, out, "-m", str(tmp_path / "mine.py")) == 0
    table = capsys.readouterr().out
    assert "vae" in table
    assert "mine" in table


def test_data_of_which_a_part_is_missing_fail_their_cells_and_say_what_is_missing(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mnist" / "MNIST" / "raw").mkdir(parents=True)
    assert _run(finished[0], tmp_path / "run", "--dataset", "mnist") == 3
    for record in RunFolder.open(tmp_path / "run").records():
        assert (record.error.phase, record.error.type) == ("data", "DataError")
        assert str(tmp_path / "data" / "mnist" / "MNIST" / "raw" / "train-images-idx3-ubyte") in record.error.message
        assert "GENBENCH_DATA" in record.error.hint


def test_fail_fast_stops_at_the_first_failure(finished, tmp_path):
    for name in ("raises", "exits"):
        (tmp_path / f"{name}.py").write_text(f"import torch\ndef sample(n, seed, device):\n    {BAD[name][0]}\n")
    words = ["-m", str(tmp_path / "raises.py"), "-m", str(tmp_path / "exits.py"), "--fail-fast"]
    assert _run(finished[0], tmp_path / "run", *words) == 3
    assert len(RunFolder.open(tmp_path / "run").records()) == 1


def test_a_run_killed_at_any_instant_goes_on_to_the_same_numbers(finished, tmp_path):
    suite, out = finished
    command = [sys.executable, "-m", "genbench", "run", "--suite", str(suite), "--out", str(tmp_path / "run")]
    dice = random.Random(0)
    done: set[str] = set()
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(dice.uniform(0.2, 6.0))
            process.send_signal(signal.SIGKILL)
        now = {record.key for record in RunFolder(tmp_path / "run").records() if record.status == "ok"}
        assert done <= now, "a finished cell was lost"
        done = now
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    last = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert last.returncode == 0, last.stderr
    if done:
        assert f"{len(done)} of them finished before" in last.stderr
    expected = {
        r.key: _numbers(r) for r in RunFolder.open(out).records() if r.cell.subject.name in {"vae", "real", "noise"}
    }
    assert {r.key: _numbers(r) for r in RunFolder.open(tmp_path / "run").records()} == expected


def test_interrupting_a_run_says_so_and_keeps_what_is_finished(finished, tmp_path):
    command = [sys.executable, "-m", "genbench", "run", "--suite", str(finished[0]), "--out", str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell starts background jobs with SIGINT ignored, and the tests may be one.
    with subprocess.Popen(command, **pipes, preexec_fn=_listen_to_interrupts) as process:
        while not (tmp_path / "run" / "events.jsonl").is_file():
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert all(record.status == "ok" for record in RunFolder.open(tmp_path / "run").records())


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
