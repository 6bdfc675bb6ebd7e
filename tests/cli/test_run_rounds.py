"""`genbench run --rounds`: speeds from timed rounds of what the run has trained."""

from __future__ import annotations

import json
from functools import partial

import pytest

from genbench.cli.main import main
from genbench.store import RunFolder
from genbench.timed_rows import time_rows


@pytest.mark.slow
def test_a_run_with_rounds_shows_their_speeds_and_keeps_them(tiny_suite, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("genbench.timed_rows.time_rows", partial(time_rows, phases=("train", "latency")))
    run = tmp_path / "run"
    assert main(["run", "--suite", str(tiny_suite), "-m", "vae", "--rounds", "smoke", "--out", str(run)]) == 0
    shown = capsys.readouterr()
    assert "timed rounds, effort smoke" in shown.err
    assert "1 rounds, each in a process of its own" in shown.out
    speeds = RunFolder.open(run).speeds()
    (row,) = speeds.results
    assert row.error is None
    assert {"train_images_per_second", "latency_seconds"} <= set(row.measures)
    jobs = [json.loads(path.read_text())["job"] for path in sorted((run / "rounds").rglob("job.json"))]
    assert {job["weights"] for job in jobs} == {str(run / "cells" / row.cell.key)}
    assert main(["leaderboard", str(run), "--format", "json"]) == 0
    board = json.loads(capsys.readouterr().out)["leaderboards"][0]
    (vae,) = [one for one in board["rows"] if one["label"] == "vae"]
    assert vae["cells"]["latency_seconds"]["value"] == pytest.approx(1e3 * row.measures["latency_seconds"].value)


@pytest.mark.slow
def test_without_rounds_nothing_is_timed_after_the_cells(tiny_suite, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["run", "--suite", str(tiny_suite), "-m", "vae", "--out", str(run)]) == 0
    assert not (run / "speeds.json").exists()
    assert "timed rounds" not in capsys.readouterr().err
