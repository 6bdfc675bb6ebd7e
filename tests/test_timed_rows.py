"""Timed rounds at the end of a run: who is measured, with which weights, and what stays when a model joins later."""

from __future__ import annotations

import pytest

from genbench.core.bench import EFFORTS, Bench, BenchFile
from genbench.core.errors import StoreError
from genbench.core.record import Environment, Record
from genbench.plan import Selection, load_suite, make_plan
from genbench.store import RunFolder
from genbench.timed_rows import time_rows

HERE = Environment(device="cpu", platform="Linux", python="3.11", torch="2.6", packages={}, threads=2)
ELSEWHERE = HERE.model_copy(update={"device": "another"})


class FakeBench:
    """Stands in for `rounds.bench`; says what it was asked."""

    def __init__(self, environment=HERE):
        self.calls = []
        self.environment = environment

    def __call__(self, cells, *, effort, folder, phases, weights, tell):
        self.calls.append(([cell.label for cell in cells], weights))
        rows = tuple(Bench(cell=cell) for cell in cells)
        return BenchFile(genbench_version="1", created="now", environment=self.environment, results=rows)


@pytest.fixture
def fake(monkeypatch):
    made = FakeBench()
    monkeypatch.setattr("genbench.timed_rows.bench", made)
    return made


def _cells(tiny_suite, *models, seeds=(0,)):
    return make_plan(load_suite(str(tiny_suite)), Selection(models=models, seeds=seeds), version="1").cells


def _finish(folder, cells, *, status="ok", weights=True):
    for cell in cells:
        folder.clear_cell(cell.key)
        folder.write_record(Record(key=cell.key, cell=cell, status=status, started="a", ended="b"))
        if weights and cell.role == "model" and cell.weights_from is None:
            (folder.cell_folder(cell.key) / "model.safetensors").write_bytes(b"")


def test_finished_models_are_measured_once_with_their_weights(tiny_suite, tmp_path, fake):
    folder = RunFolder.create(tmp_path / "run")
    cells = _cells(tiny_suite, "vae", "ddpm", "ddpm[sampler=ddim,num_steps=4]", seeds=(0, 1))
    _finish(folder, cells)
    made = time_rows(cells, folder, effort=EFFORTS["smoke"])
    ((labels, weights),) = fake.calls
    assert labels == ["vae", "ddpm", "ddpm[sampler=ddim,num_steps=4]"]  # of two seeds one, and no control
    ddpm, ddim = (next(c for c in cells if c.label == label and c.seed == 0) for label in labels[1:])
    assert weights[ddpm.key] == weights[ddim.key] == folder.cell_folder(ddpm.key)
    assert folder.speeds() == made
    assert time_rows(cells, folder, effort=EFFORTS["smoke"]) == made
    assert len(fake.calls) == 1


def test_a_model_that_joins_later_is_measured_alone_and_old_rows_stay(tiny_suite, tmp_path, fake):
    folder = RunFolder.create(tmp_path / "run")
    first = _cells(tiny_suite, "vae")
    _finish(folder, first)
    time_rows(first, folder, effort=EFFORTS["smoke"])
    both = _cells(tiny_suite, "vae", "ddpm")
    _finish(folder, both)
    made = time_rows(both, folder, effort=EFFORTS["smoke"])
    assert [labels for labels, _ in fake.calls] == [["vae"], ["ddpm"]]
    assert [row.label for row in made.results] == ["vae", "ddpm"]


def test_rows_of_another_machine_do_not_stand_beside_new_ones(tiny_suite, tmp_path, fake):
    folder = RunFolder.create(tmp_path / "run")
    first = _cells(tiny_suite, "vae")
    _finish(folder, first)
    time_rows(first, folder, effort=EFFORTS["smoke"])
    fake.environment = ELSEWHERE
    both = _cells(tiny_suite, "vae", "ddpm")
    _finish(folder, both)
    made = time_rows(both, folder, effort=EFFORTS["smoke"])
    assert [row.label for row in made.results] == ["ddpm"]


def test_what_failed_or_has_no_weights_is_not_asked_for_them(tiny_suite, tmp_path, fake):
    folder = RunFolder.create(tmp_path / "run")
    cells = _cells(tiny_suite, "vae", "ddpm")
    _finish(folder, cells, status="failed")
    assert time_rows(cells, folder, effort=EFFORTS["smoke"]) is None
    assert fake.calls == []
    _finish(folder, cells[:1], weights=False)
    time_rows(cells, folder, effort=EFFORTS["smoke"])
    assert fake.calls == [(["vae"], {})]


def test_a_damaged_file_of_speeds_is_told(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    assert folder.speeds() is None
    (folder.path / "speeds.json").write_text("{}")
    with pytest.raises(StoreError, match="not a bench file"):
        folder.speeds()
